"""The LoCoMo benchmark through a real MemoryOS, with a language model on the loopback."""

import json

import locomo
import pytest
from llm_server import LLMServer
from memoryos_replies import REPLIES

from parts.agents.memoryos import paged
from parts.datasets.locomo import load_locomo, relevant


def test_pages_hold_every_turn_once(tiny_file):
    for conversation in load_locomo(tiny_file):
        pages = paged(conversation)
        assert [one for page in pages.facts for one in page.evidence] == [turn.id for turn in conversation.turns]
        assert len(pages.facts) < len(conversation.turns)
        texts = {turn.id: turn.text for turn in conversation.turns}
        for page in pages.facts:
            assert len({one.split(":")[0] for one in page.evidence}) == 1
            assert all(texts[one] in page.text for one in page.evidence)
        # Every question with evidence among the turns has some among the pages.
        assert [bool(one) for one in relevant(pages, "facts")] == [bool(one) for one in relevant(conversation, "turns")]


@pytest.mark.parametrize(
    "argv", [["--agent", "memoryos"], ["--agent", "memoryos", "--llm-url", "x", "--memories", "facts"]]
)
def test_arguments_for_memoryos(argv, capsys):
    with pytest.raises(SystemExit):
        locomo.main(argv)
    assert "error" in capsys.readouterr().err


@pytest.mark.slow
def test_a_language_model_that_does_not_answer_is_a_sentence(tiny_file, capsys):
    with LLMServer(status=500) as broken:
        arguments = ["--agent", "memoryos", "--llm-url", broken.base_url, "--data", str(tiny_file)]
        assert locomo.main(arguments) == 9
    assert "does not answer" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("first_layer_stock")
def test_deployment_protocol_through_a_real_memoryos(tiny_file, tmp_path):
    result = tmp_path / "result.json"
    with LLMServer(REPLIES) as llm:
        arguments = ["--agent", "memoryos", "--llm-url", llm.base_url, "--llm-key", "secret", "--data", str(tiny_file)]
        protocol = ["--protocol", "deployment", "--folds", "2", "--quick", "--json", str(result)]
        assert locomo.main([*arguments, *protocol]) == 0
    found = json.loads(result.read_text(encoding="utf-8"))
    figures = found["figures"]
    assert {"stock_ndcg10", "hins_ndcg10", "memoryos_stock_ndcg10", "memoryos_hins_ndcg10"} <= set(figures)
    assert figures["stock_ndcg10"] > 50
    assert figures["memoryos_stock_ndcg10"] > 25
    assert {row["scoring"] for row in found["rows"]} == {"encoder", "memoryos"}
    assert found["settings"]["memories"] == "pages"
    assert "secret" not in result.read_text(encoding="utf-8")
