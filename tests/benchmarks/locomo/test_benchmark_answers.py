"""Answers side by side: through a real Mem0 and a loopback language model; what a stopped run compares."""

import json

import answers
import numpy as np
import pytest
from llm_server import LLMServer
from memoryos_replies import REPLIES
from stand_in import RULES

from hins_memory.llm import BudgetError, LlmError
from parts.datasets.locomo import load_locomo
from parts.locomo.answers import Context, answer_all, draw, end_contexts
from parts.locomo.answers_report import answer_rows
from parts.locomo.side_by_side import Asked

pytest.importorskip("nltk")


def questions(path):
    """Every question of a file, as the agent is asked it, with nothing found."""
    return [
        Asked(one.id, number, question, (), (), frozenset(), False)
        for one in load_locomo(path)
        for number, question in enumerate(one.questions)
    ]


class Scripted:
    """A reader that answers with the first memory, until its budget is spent."""

    name, workers = "scripted", 1

    def __init__(self, budget=1000, spoilt=""):
        self.budget, self.spoilt, self.asked = budget, spoilt, []

    def read(self, question, memories):
        if len(self.asked) >= self.budget:
            raise BudgetError("spent")
        self.asked.append((question, memories))
        if self.spoilt and self.spoilt in memories:
            raise LlmError("no answer")
        return memories[0] if memories else "no idea"


@pytest.mark.slow
def test_answers_from_every_source_are_kept_scored_and_compared(tiny_samples, tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HINS_HOME", str(tmp_path / "home"))
    for sample in tiny_samples:
        sample["qa"] = sample["qa"][:3]
    data, result, page = tmp_path / "data.json", tmp_path / "result.json", tmp_path / "page.md"
    data.write_text(json.dumps(tiny_samples[:1]), encoding="utf-8")
    argv = ["--data", str(data), "--sources", f"nothing,stock,mine={tiny_folder},evidence", "--prompts", "short,copy"]
    with LLMServer(dict(RULES)) as server:
        argv += ["--model", f"m={server.base_url}", "--k", "1,2", "--json", str(result), "--page", str(page)]
        assert answers.main(argv) == 0
        first = json.loads(result.read_text(encoding="utf-8"))
        asked = len(server.requests)
        body = server.requests[-1]
    # the server is gone, and with a spent budget nothing is asked: the page is made of what is kept
    assert answers.main([*argv, "--max-total-tokens", "1"]) == 0
    again = json.loads(result.read_text(encoding="utf-8"))
    assert again["rows"] == first["rows"]
    assert asked > 3
    assert body["temperature"] == 0
    assert body["max_tokens"] == first["settings"]["max_tokens"]
    assert body["messages"][0]["content"] == first["settings"]["instructions"]["copy"]
    rows = {(row["prompt"], row["k"], row["source"]): row for row in first["rows"]}
    assert len(rows) == len(first["rows"]) == 16
    assert {row["questions"] for row in first["rows"]} == {3}
    assert rows["short", 1, "evidence"]["official_f1"] > rows["short", 1, "nothing"]["official_f1"]
    assert "room" in rows["short", 1, "mine"]
    assert str(tiny_folder) not in result.read_text(encoding="utf-8") + page.read_text(encoding="utf-8")
    assert "| evidence | 100.0 |" in page.read_text(encoding="utf-8")


# The second and the third are what small models reply, on which MemoryOS itself fails.
@pytest.mark.slow
@pytest.mark.parametrize("summaries", [REPLIES["expert in analyzing dialogue topics"], ["talk"], {"theme": "talk"}])
def test_memoryos_finds_pages_with_the_replies_of_the_first_model(
    summaries, tiny_samples, tiny_folder, tmp_path, monkeypatch
):
    pytest.importorskip("memoryos")
    monkeypatch.setenv("HINS_HOME", str(tmp_path / "home"))
    for sample in tiny_samples:
        sample["qa"] = sample["qa"][:3]
    data, result, page = tmp_path / "data.json", tmp_path / "result.json", tmp_path / "page.md"
    data.write_text(json.dumps(tiny_samples), encoding="utf-8")
    argv = ["--agent", "memoryos", "--data", str(data), "--conversations", "1", "--seed", "1", "--base", "mine"]
    with LLMServer({**RULES, **REPLIES, "expert in analyzing dialogue topics": summaries}) as server:
        argv += ["--model", f"m={server.base_url}", "--sources", f"mine={tiny_folder},evidence"]
        assert answers.main([*argv, "--json", str(result), "--page", str(page)]) == 0
        asked = [request["messages"][0]["content"] for request in server.requests]
    found = json.loads(result.read_text(encoding="utf-8"))
    assert found["settings"]["agent"] == "memoryos"
    assert len(found["settings"]["conversations"]) == 1
    rows = {row["source"]: row for row in found["rows"]}
    assert rows["mine"]["questions"] == 3
    assert 0 < rows["mine"]["recall"] <= 100
    assert any("continuity detector" in one for one in asked)
    assert "MemoryOS retrieves among the pages" in page.read_text(encoding="utf-8").replace("\n", " ")


@pytest.mark.parametrize(("argv", "said"), [
    (["--conversations", "9"], "there are 4"),
    (["--agent", "memoryos", "--hybrid"], "is for Mem0"),
])  # fmt: skip
def test_what_cannot_be_asked_is_a_sentence(argv, said, tiny_file, capsys):
    assert answers.main(["--data", str(tiny_file), "--model", "m=http://127.0.0.1:9", *argv]) == 2
    assert said in capsys.readouterr().err


def test_the_order_of_questions_is_drawn_beforehand_and_traps_are_left_out(tiny_file):
    asked = questions(tiny_file)
    many, few = draw(asked, 40, 3), draw(asked, 10, 3)
    assert few == many[:10]
    assert draw(asked, 10, 4) != few
    assert all(one.question.category != 5 for one in draw(asked, 1000, 3))


def test_a_stopped_run_compares_the_questions_that_every_source_was_asked(tiny_file):
    data = load_locomo(tiny_file)
    drawn = draw(questions(tiny_file), 10, 0)
    contexts = end_contexts(drawn, data)
    reader = Scripted(budget=7)
    found = answer_all(reader, drawn, contexts, "")
    assert (found.questions, found.drawn, found.failed) == (3, 10, 0)
    assert [question for question, _ in reader.asked][::2] == [one.question.text for one in drawn[:4]]
    assert all(len(values) == 3 for scores in found.scores.values() for values in scores.values())
    # an answer that the endpoint spoils scores 0 and is counted
    spoilt = answer_all(Scripted(spoilt=contexts["evidence"][0].memories[0]), drawn, contexts, "")
    assert (spoilt.questions, spoilt.failed) == (10, 1)
    assert spoilt.scores["evidence"]["official_f1"][0] == 0.0


def test_the_share_of_the_room_is_of_the_way_from_the_base_to_the_evidence(tiny_file):
    drawn = draw(questions(tiny_file), 40, 0)
    right = [Context((one.question.answer,), 1.0) for one in drawn]
    wrong = [Context(("zzz",), 0.0) for _ in drawn]
    half = [right[n] if n % 2 else wrong[n] for n in range(len(drawn))]
    found = answer_all(Scripted(), drawn, {"stock": wrong, "half": half, "evidence": right}, "")
    stock, row, best = answer_rows(("m", "short", 5), found, "stock", 0)
    assert (stock["official_f1"], best["official_f1"]) == (0.0, pytest.approx(100.0))
    assert row["official_f1_gain"] == pytest.approx(row["official_f1"])
    assert row["room"] == pytest.approx(row["official_f1"] / best["official_f1"] * 100)
    assert row["room_low"] < row["room"] < row["room_high"]
    assert "room" not in stock
    assert np.isfinite(best["official_f1_low"])


def test_the_halves_are_of_whole_conversations(tiny_file, tmp_path):
    assert answers.main(["--data", str(tiny_file), "--halves", str(tmp_path), "--seed", "1"]) == 0
    halves = [{one.id for one in load_locomo(tmp_path / f"{name}.json")} for name in ("train", "eval")]
    assert [len(half) for half in halves] == [2, 2]
    assert not halves[0] & halves[1]
