"""Encoders as MTEB models, and our scorer against MTEB's task code."""

import json
import sys
from importlib.util import find_spec

import lmeb
import numpy as np
import pytest

from hins_memory.encoders.encoder import Encoder
from hins_memory.errors import ConfigError
from hins_memory.evaluation import EvalQuery, EvalSet, evaluate_encoder, mteb_model
from parts.datasets.locomo import sample_sets
from parts.evaluation.mteb_tasks import task_scores

# found and not imported: that takes seconds, of each process that collects tests
pytestmark = pytest.mark.skipif(find_spec("mteb") is None, reason="the extra mteb is not installed")


@pytest.fixture(scope="module")
def tiny(tiny_folder):
    return Encoder.load(tiny_folder)


@pytest.mark.slow
def test_an_encoder_is_a_model_of_mteb(tiny):
    from mteb.models import EncoderProtocol
    from mteb.types import PromptType

    model = mteb_model(tiny)
    assert isinstance(model, EncoderProtocol)
    assert model.mteb_model_meta.name == f"hins-memory/{tiny.version}"
    assert model.mteb_model_meta.embed_dim == 32
    batches = [{"text": ["Ann plays the cello.", "雪球 🐈"]}, {"text": ["It rains."]}]
    vectors = model.encode(batches, prompt_type=PromptType.document, batch_size=2)
    assert vectors.shape == (3, 32)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    asked = model.encode([{"text": ["It rains."]}], prompt_type=PromptType.query)
    assert np.allclose(model.similarity(asked, vectors)[0, 2], asked[0] @ vectors[2], atol=1e-5)
    assert np.allclose(model.similarity_pairwise(vectors, vectors), 1, atol=1e-5)


def test_queries_are_encoded_in_the_role_of_queries(stock_encoder):
    from mteb.types import PromptType

    asked = {}

    class Listening(Encoder):
        def encode(self, texts, *, role="document", batch_size=32):
            asked.setdefault(role, []).extend(texts)
            return super().encode(texts, role=role, batch_size=batch_size)

    model = mteb_model(Listening(stock_encoder.model, "listening"))
    model.encode([{"text": ["a"]}], prompt_type=PromptType.query)
    model.encode([{"text": ["b"]}], prompt_type=PromptType.document)
    model.encode([{"text": ["c"]}])
    assert asked == {"query": ["a"], "document": ["b", "c"]}


@pytest.mark.slow
def test_both_scorers_agree_on_the_sample(tiny):
    sets = sample_sets()[:3]
    ours, theirs = evaluate_encoder(tiny, sets).by_group(), task_scores(sets, tiny)
    assert set(ours) == set(theirs)
    assert len(ours) >= 4
    for group, scores in ours.items():
        assert 100 * scores["ndcg@10"] == pytest.approx(100 * theirs[group]["ndcg_at_10"], abs=0.1)
        assert 100 * scores["recall@10"] == pytest.approx(100 * theirs[group]["recall_at_10"], abs=0.1)
    assert 0 < theirs["single-hop"]["ndcg_at_10"] < 1


def test_candidates_are_the_own_conversation_alone(stock_encoder):
    # The other set holds the perfect answer, which must not push the own one down.
    one = EvalSet(
        "one", {"a": "Ann plays the cello.", "b": "It rains."}, (EvalQuery("Who plays?", frozenset("a"), "1"),)
    )
    two = EvalSet("two", {"a": "Who plays?", "c": "Snow."}, (EvalQuery("What falls?", frozenset("c"), "2"),))
    found = task_scores([one, two], stock_encoder)
    assert found["1"]["ndcg_at_10"] == 1
    assert found["1"]["recall_at_1"] == 1


@pytest.mark.slow
def test_a_file_in_locomo_s_format_is_checked(tiny_file, tiny_folder, tmp_path, capsys):
    result = tmp_path / "result.json"
    arguments = ["--data", str(tiny_file), "--quick", "--encoder", str(tiny_folder), "--json", str(result)]
    assert lmeb.main(arguments) == 0
    found = json.loads(result.read_text(encoding="utf-8"))
    assert found["figures"]["largest_difference"] < 0.1
    assert {row["group"] for row in found["rows"]} == {"1", "2", "3", "4", "5"}
    assert any(row["mteb"] > 0 for row in found["rows"])


@pytest.mark.slow
def test_an_unreachable_hub_is_a_sentence(tiny_folder, capsys):
    assert lmeb.main(["--encoder", str(tiny_folder), "--tasks", "LoCoMo", "REALTALK"]) == ConfigError.exit_code
    said = " ".join(capsys.readouterr().err.split())
    assert "HF_HUB_OFFLINE is set" in said
    assert "The data of LoCoMo (mteb/LoCoMo" in said
    assert "The data of REALTALK" in said
    assert "Run this where the hub can be reached" in said


@pytest.mark.slow
def test_an_unknown_task_is_named(tiny_folder, capsys):
    assert lmeb.main(["--encoder", str(tiny_folder), "--tasks", "LoCoCo"]) == ConfigError.exit_code
    assert "LMEB has no task LoCoCo" in capsys.readouterr().err


def test_without_mteb_the_message_is_the_command(tiny, monkeypatch):
    for name in ("mteb", "mteb.models"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=r"pip install .hins-memory\[mteb\]"):
        mteb_model(tiny)
    with pytest.raises(ConfigError, match=r"pip install .hins-memory\[mteb\]"):
        task_scores([], tiny)
