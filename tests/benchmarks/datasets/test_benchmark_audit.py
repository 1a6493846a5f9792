"""The audit of labels: rules against small conversations, the packaged list, and what leaving out does."""

import json

import audit_locomo
import pytest

from parts.datasets.locomo import load_locomo
from parts.datasets.locomo_audit import audited, find_label_errors, is_known, known_errors, write_errors


def _sample(text, answer, question="When did Ann sail?", category=2, evidence=("D1:1",)):
    """A conversation with one turn, said on Monday 8 May 2023, and one question about it."""
    turns = [{"dia_id": "D1:1", "speaker": "Ann", "text": text}]
    row = {"question": question, "answer": answer, "category": category, "evidence": list(evidence)}
    talk = {"session_1": turns, "session_1_date_time": "1:56 pm on 8 May, 2023", "session_2": None}
    return {"sample_id": "one", "conversation": talk, "qa": [row]}


@pytest.mark.parametrize(
    ("text", "answer", "wrong"),
    [
        ("I sailed yesterday.", "7 May 2023", False),
        ("I sailed yesterday.", "May 7, 2023", False),
        ("I sailed yesterday.", "7 May 2022", True),
        ("I sailed yesterday.", "8 May 2023", True),
        ("I sailed yesterday.", "May 2023", False),
        ("I sailed yesterday.", "2023", False),
        ("I sailed yesterday.", "before 9 May 2023", False),
        ("I sailed the day before yesterday.", "6 May 2023", False),
        ("I sailed the day before yesterday.", "7 May 2023", True),
        ("I sailed two days ago.", "6 May 2023", False),
        ("I sailed two days ago.", "5 May 2023", True),
        ("I sailed two weeks ago.", "22 April 2023", False),
        ("I sailed two weeks ago.", "8 March 2023", True),
        ("I sailed last Friday.", "5 May 2023", False),
        ("I sailed last Friday.", "28 April 2023", False),
        ("I sailed last Friday.", "2 June 2023", True),
        ("I sailed last month.", "April, 2023", False),
        ("I sailed last month.", "May 2023", True),
        ("I sailed last year.", "2022", False),
        ("I sailed last year.", "2021", True),
        ("I sailed last week.", "The week before 8 May 2023", False),
        ("I sailed last week.", "The week before 9 June 2023", True),
        ("I sailed last Sat.", "The saturday before 8 May 2023", False),
        ("I sailed last Sat.", "The sunday before 8 May 2023", True),
        # not certain: two times, something vague, a plan, nothing about time, no date
        ("I sailed yesterday and will sail again next week.", "1 May 2022", False),
        ("Yesterday I said that I sailed a few years ago.", "1 May 2022", False),
        ("I show at a fair next month.", "April 2023", False),
        ("I sailed.", "1 May 2022", False),
        ("I sailed yesterday.", "With her brother", False),
    ],
)
def test_a_date_that_contradicts_its_evidence(text, answer, wrong):
    found = find_label_errors([_sample(text, answer)])
    assert [one.reason for one in found] == (["contradiction"] if wrong else [])


@pytest.mark.parametrize(
    ("evidence", "reason"),
    [
        (["D1:1"], None),
        (["D:1:01"], None),
        (["D1:1; D1:1"], None),
        ([], "no evidence"),
        (["D1:2"], "missing turn"),
        (["D1:1", "D"], "missing turn"),
        (["D1:1 D7:7"], "missing turn"),
    ],
)
def test_evidence_has_to_be_there(evidence, reason):
    found = find_label_errors([_sample("I sailed.", "yes", evidence=evidence)])
    assert [one.reason for one in found] == ([reason] if reason else [])


def test_a_question_asked_again_is_found_unless_its_answer_is_another():
    sample = _sample("I sailed.", "yes")
    row = sample["qa"][0]
    sample["qa"] += [
        row | {"question": "when did ann sail"},
        row | {"answer": "no"},
        row | {"category": 5, "answer": None},
    ]
    found = find_label_errors([sample])
    assert [(one.number, one.reason) for one in found] == [(1, "repeated"), (3, "repeated")]


def test_a_session_without_a_time_contradicts_nothing():
    sample = _sample("I sailed yesterday.", "1 May 1999")
    sample["conversation"]["session_1_date_time"] = "some day"
    assert find_label_errors([sample]) == []


def test_the_packaged_list_is_small_and_holds_no_dialogue():
    errors = known_errors()
    assert 10 <= len(errors) <= 60
    assert {one.reason for one in errors.values()} == {"no evidence", "missing turn", "contradiction", "repeated"}
    assert all(len(one.detail) < 90 for one in errors.values())


def test_only_the_very_question_is_left_out(tiny_samples, tmp_path, monkeypatch):
    tiny_samples[0]["qa"][3]["evidence"] = []
    path = tmp_path / "x.json"
    path.write_text(json.dumps(tiny_samples), encoding="utf-8")
    found = find_label_errors(tiny_samples)
    assert [(one.conversation, one.number) for one in found] == [("tiny-1", 3)]
    write_errors(tmp_path / "list.json", found, "0" * 64)
    errors = known_errors(tmp_path / "list.json")
    text = tiny_samples[0]["qa"][3]["question"]
    assert is_known(errors, "tiny-1", 3, text)
    assert not is_known(errors, "tiny-1", 3, text + "?")
    assert not is_known(errors, "tiny-1", 4, text)
    # the packaged list knows nothing of these conversations
    data = load_locomo(path)
    assert audited(data) == data


def test_the_audit_runs_and_writes_its_list(tiny_file, tmp_path, capsys):
    target, result = tmp_path / "list.json", tmp_path / "result.json"
    assert audit_locomo.main(["--data", str(tiny_file), "--write", str(target), "--json", str(result)]) == 0
    assert known_errors(target) == {}
    figures = json.loads(result.read_text(encoding="utf-8"))["figures"]
    assert figures == {"questions": 176.0, "label_errors": 0.0}
    assert "0 of 176 questions" in capsys.readouterr().out
