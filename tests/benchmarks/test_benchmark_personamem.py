"""The PERSONAMEM benchmark: files, letters, and small runs through a real Mem0 and a real MemoryOS."""

import csv
import json
from collections import Counter

import personamem
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llm_server import LLMServer
from memoryos_replies import REPLIES

from hins_memory.config import Settings
from hins_memory.errors import ConfigError
from parts.agents.histories import Mem0History, exchanges
from parts.agents.memoryos import SILENCE
from parts.datasets.personamem import (
    ADDRESS,
    PACKAGED,
    QUESTION_TYPES,
    Contexts,
    Message,
    choice,
    find_files,
    load_questions,
)
from parts.datasets.personamem_tiny import write_tiny

LETTERS = {
    "(c) because ...": "c",
    "(C)": "c",
    "c": "c",
    "c.": "c",
    "**(b)**": "b",
    "B because it rains": "b",
    "A": "a",
    "a)": "a",
    "The answer is C": "c",
    "The correct answer is (d), not (a).": "d",
    "Answer: b": "b",
    "I would choose option A.": "a",
    "The best response is (a).": "a",
    "Considering everything, (c) fits best.": "c",
    "A user like this would pick D": "d",
    "(c) because (a) is about painting": "c",
    "<final_answer>(d)": "d",
    "(a) was tempting.\n<final_answer>(b)</final_answer>": "b",
    "选择 (c)。": "c",
    "A good idea would be to paint.": None,
    "The answer is a tough call.": None,
    "(a) or (b)": None,
    "I think (a) and (b) both fit.": None,
    "The answer is not (a) but (c).": None,
    "B or C": None,
    "Both A and B": None,
    "None of them": None,
    "I don't know.": None,
    "": None,
    "e": None,
}


@pytest.mark.parametrize(("reply", "letter"), LETTERS.items())
def test_the_letter_of_a_reply(reply, letter):
    assert choice(reply) == letter


@given(st.text(max_size=200), st.sampled_from("abcd"))
def test_any_reply_that_begins_with_its_letter_in_parentheses_chooses_it(text, letter):
    # Unless another option follows at once: "(a) or (b)".
    assert choice(f"({letter}). {text.replace('(', '')}" if "final" not in text.lower() else f"({letter})") == letter


def test_the_files_are_read(tmp_path):
    questions_file, contexts_file = write_tiny(tmp_path)
    questions, contexts = load_questions(questions_file), Contexts(contexts_file)
    assert [one.kind for one in questions] == list(QUESTION_TYPES)
    assert len({one.correct for one in questions}) == 4
    assert questions[0].options["abcd".index(questions[0].correct)].startswith("The oboe")
    assert len(contexts) == 2
    messages = contexts.messages(questions[0].context)
    assert [one.role for one in messages[:3]] == ["system", "user", "assistant"]
    assert questions[0].end < questions[1].end < len(messages)
    assert "普通话" in contexts.messages(questions[-1].context)[1].text
    with pytest.raises(ConfigError, match="does not hold the context nowhere"):
        contexts.messages("nowhere")


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("all_options", "['(a) one', '(b) two']"),
        ("all_options", "no list"),
        ("all_options", "['one', 'two', 'three', 'four']"),
        ("correct_answer", "(e)"),
        ("end_index_in_shared_context", "soon"),
        ("end_index_in_shared_context", "-1"),
        ("evidence_indexes", "[99]"),
    ],
)
def test_a_row_of_another_format_is_named(tmp_path, column, value):
    path, _ = write_tiny(tmp_path)
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    rows[2][column] = value
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[2]))
        writer.writeheader()
        writer.writerows(rows)
    with pytest.raises(ConfigError, match="Line 4 of"):
        load_questions(path)


def test_the_packaged_histories_and_questions_are_whole():
    questions, contexts = load_questions(PACKAGED[0]), Contexts(PACKAGED[1])
    assert len({one.id for one in questions}) == len(questions) >= 12 * 14
    assert len(contexts) == len({one.context for one in questions}) == 12
    kinds = Counter((one.context, one.kind) for one in questions)
    assert set(kinds) == {(one.context, kind) for one in questions for kind in QUESTION_TYPES}
    assert min(kinds.values()) >= 2
    letters = Counter(one.correct for one in questions)
    assert max(letters.values()) - min(letters.values()) <= 1
    for name in {one.context for one in questions}:
        messages = contexts.messages(name)
        assert len(messages) >= 60
        # Who the user is comes first, then user and assistant in turn; no message is said twice.
        assert [one.role for one in messages] == ["system", *(["user", "assistant"] * (len(messages) // 2))]
        assert len({one.text for one in messages}) == len(messages)
    for one in questions:
        messages = contexts.messages(one.context)
        assert len({text.lower() for text in one.options}) == 4
        assert 1 < one.end <= len(messages)
        assert messages[one.end - 1].role == "assistant"
        # What the right option rests on was said by the user, before the question.
        assert one.evidence
        assert all(messages[place].role == "user" for place in one.evidence)
        assert max(one.evidence) < one.end


@pytest.mark.parametrize("extreme", [max, min])
def test_a_packaged_options_length_does_not_tell_the_right_one(extreme):
    # What a guess by length earns where several options of that length share it; chance is 0.25.
    questions = load_questions(PACKAGED[0])
    earned = 0.0
    for one in questions:
        lengths = {letter: len(text) for letter, text in zip("abcd", one.options, strict=True)}
        guessed = [letter for letter, length in lengths.items() if length == extreme(lengths.values())]
        earned += (one.correct in guessed) / len(guessed)
    assert 0.15 < earned / len(questions) < 0.35


@pytest.mark.parametrize("line", [b"{", b"[1]", b'{"x": 1}', b"\xff\xfe"])
def test_a_context_of_another_format_is_named(tmp_path, line):
    path = tmp_path / "contexts.jsonl"
    path.write_bytes(b'{"one": []}\n\n' + line + b"\n")
    with pytest.raises(ConfigError, match="Line 3 of"):
        Contexts(path)


def test_a_missing_file_says_where_it_comes_from(tmp_path, capsys):
    for size, name in (("32k", "32k"), ("128k", "128k"), ("1m", "1M")):
        with pytest.raises(ConfigError, match=f"questions_{name}.csv") as refused:
            find_files(size, tmp_path, None, None)
        assert ADDRESS in str(refused.value)
    questions, contexts = write_tiny(tmp_path, "128k")
    assert find_files("128k", tmp_path, None, None) == (questions, contexts)
    contexts.unlink()
    assert personamem.main(["--folder", str(tmp_path), "--size", "128k"]) == ConfigError.exit_code
    said = " ".join(capsys.readouterr().err.split())
    assert "shared_contexts_128k.jsonl" in said
    assert f"from {ADDRESS} (no digest of it is known here)" in said
    # The digest of the 32k questions is known.
    write_tiny(tmp_path, "32k")
    with pytest.raises(ConfigError, match="is not the official file"):
        find_files("32k", tmp_path, None, None)


def test_pairs_lose_nothing_that_is_said():
    told = [
        Message("system", "Who"),
        Message("user", "one"),
        Message("assistant", "two"),
        Message("assistant", "three"),
    ]
    told += [Message("user", "  "), Message("user", "four")]
    found = list(exchanges(told))
    assert found == [("Who", SILENCE), ("one", "two"), (SILENCE, "three"), ("four", SILENCE)]


@pytest.mark.parametrize(
    "argv",
    [
        ["--agent", "memoryos"],
        ["--top-k", "0"],
        ["--size", "2k"],
        ["--limit", "-1"],
        ["--size", "128k"],
        ["--controls"],
    ],
)
def test_arguments_that_cannot_be_are_refused(argv, capsys, monkeypatch):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(SystemExit):
        personamem.main(argv)
    assert "error" in capsys.readouterr().err


def test_an_agent_knows_nothing_of_what_comes_later(tmp_path, tiny_folder):
    questions_file, contexts_file = write_tiny(tmp_path / "data")
    question, contexts = load_questions(questions_file)[0], Contexts(contexts_file)
    messages = contexts.messages(question.context)
    with Mem0History(tiny_folder, Settings(home=tmp_path, project="history", log_url="")) as agent:
        agent.begin("one")
        agent.tell(messages[: question.end])
        assert sorted(agent.ask("drums", 50)) == sorted(one.text for one in messages[: question.end])
        agent.begin("two")
        assert agent.ask("drums", 50) == []


@pytest.mark.slow
def test_nearest_option_through_a_real_mem0(tmp_path, tiny_folder, capsys):
    result = tmp_path / "result.json"
    arguments = ["--quick", "--encoder", "stock", "--encoder", str(tiny_folder), "--json", str(result)]
    assert personamem.main(arguments) == 0
    found = json.loads(result.read_text(encoding="utf-8"))
    # Seven easy questions, which a good encoder answers and one of random weights does not.
    assert found["figures"]["nearest_option_accuracy"] > 80
    assert found["figures"]["encoder2_gain"] < 0
    assert found["figures"]["encoder2_gain_low"] <= found["figures"]["encoder2_gain"]
    assert 0 <= found["figures"]["question_only_accuracy"] <= 100
    assert "accuracy" not in found["figures"]
    kinds = [row["kind"] for row in found["rows"] if row["encoder"].startswith("all-MiniLM")]
    assert kinds == ["all", *QUESTION_TYPES]
    assert len(found["settings"]["sha256"]["questions_32k.csv"]) == 64
    assert "PERSONAMEM" in capsys.readouterr().out


def _letter(prompt: str) -> str:
    """What a model that knows all would reply, but for two questions."""
    if "Why did I change my instrument?" in prompt:
        return "Either (a) or (b)."
    if "Suggest something new" in prompt:
        return "I cannot say."
    right = ("The oboe, since", "Walnuts: they", "You disliked sailing", "The quiet shop", "A loaf of rye")
    for line in prompt.splitlines():
        if line.startswith("(") and any(text in line for text in right):
            return f"The answer is {line[1].upper()}, because the memories say so."
    return "(a)"


@pytest.mark.slow
def test_a_language_model_chooses_a_letter(tmp_path, tiny_folder, monkeypatch, capsys):
    monkeypatch.setenv("OPENAI_API_KEY", "loopback")
    result = tmp_path / "result.json"
    with LLMServer({"Which of these replies suits": _letter}) as llm:
        reader = ["--reader", "openai:test", "--base-url", llm.base_url, "--cache", str(tmp_path / "cache")]
        assert personamem.main(["--quick", *reader, "--encoder", str(tiny_folder), "--json", str(result)]) == 0
        asked = [one for one in llm.requests if "Which of these replies suits" in str(one)]
    assert len(asked) == 7
    # Who the user is went into the agent, what was said after the question did not.
    assert any("restores tower clocks" in str(one) for one in asked)
    assert not any("drums" in str(one) for one in asked)
    found = json.loads(result.read_text(encoding="utf-8"))
    assert found["figures"]["accuracy"] == pytest.approx(100 * 5 / 7)
    assert found["figures"]["unanswered"] == 2
    by_kind = {row["kind"]: row for row in found["rows"]}
    assert by_kind["recalling_the_reasons_behind_previous_updates"]["unanswered"] == 1
    assert by_kind["recall_user_shared_facts"]["accuracy"] == 100
    assert "no single letter" in capsys.readouterr().out


@pytest.mark.slow
def test_the_packaged_histories_and_files_of_the_official_shape_are_read_by_one_command(
    tmp_path, tiny_folder, monkeypatch
):
    monkeypatch.setenv("OPENAI_API_KEY", "loopback")
    # The official shape: another file name, fifteen columns and none of them evidence, Python's lists, CRLF.
    with PACKAGED[0].open(encoding="utf-8", newline="") as stream:
        rows = [{**row, "all_options": str(json.loads(row["all_options"]))} for row in csv.DictReader(stream)]
    columns = [name for name in rows[0] if name != "evidence_indexes"]
    assert len(columns) == 15
    with (tmp_path / "questions_128k.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    (tmp_path / "shared_contexts_128k.jsonl").write_bytes(PACKAGED[1].read_bytes())
    drawn = ["--limit", "2", "--seed", "3", "--encoder", str(tiny_folder)]
    result = tmp_path / "result.json"
    found = []
    with LLMServer({"Which of these replies suits": lambda prompt: "(a)"}) as llm:
        reader = ["--reader", "openai:test", "--base-url", llm.base_url, "--cache", str(tmp_path / "cache")]
        for more in (["--controls"], ["--folder", str(tmp_path), "--size", "128k"]):
            assert personamem.main([*drawn, *reader, *more, "--json", str(result)]) == 0
            found.append(json.loads(result.read_text(encoding="utf-8")))
        asked = [str(one) for one in llm.requests if "Which of these replies suits" in str(one)]
    # Two questions from what was retrieved, from nothing and from the evidence; the second run asks the same again,
    # and has the replies that were kept.
    assert len(asked) == 6
    assert sum("(none)" in one for one in asked) == 2
    packaged, official = found[0]["figures"], found[1]["figures"]
    assert packaged["accuracy"] == official["accuracy"]
    assert packaged["accuracy_low"] <= packaged["accuracy"] <= packaged["accuracy_high"]
    assert {"nothing_accuracy", "evidence_accuracy", "evidence_recall"} <= set(packaged)
    assert "evidence_recall" not in official
    assert set(found[1]["settings"]["sha256"]) == {"questions_128k.csv", "shared_contexts_128k.jsonl"}


@pytest.mark.slow
def test_through_a_real_memoryos(tmp_path):
    result = tmp_path / "result.json"
    with LLMServer(REPLIES) as llm:
        arguments = ["--agent", "memoryos", "--quick", "--llm-url", llm.base_url, "--llm-key", "secret"]
        assert personamem.main([*arguments, "--json", str(result)]) == 0
    found = json.loads(result.read_text(encoding="utf-8"))
    assert found["figures"]["nearest_option_accuracy"] > 50
    assert found["figures"]["unanswered"] == 0
    assert "secret" not in result.read_text(encoding="utf-8")
