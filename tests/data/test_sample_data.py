"""The packaged conversations keep their format, and the loader refuses what would break its users."""

import calendar
import copy
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import FrozenInstanceError
from importlib import resources
from itertools import pairwise

import pytest

from hins_memory.data.sample_conversations import (
    SampleConversation,
    load_sample,
    parse_conversation,
    read_conversations,
)

FILES = sorted(
    (
        entry
        for entry in resources.files("hins_memory.data").joinpath("sample").iterdir()
        if entry.name.endswith(".json")
    ),
    key=lambda entry: entry.name,
)
CONVERSATIONS = load_sample()
DAY = 86_400.0
#: At least this many questions of each kind.
KINDS = {"single-hop": 11, "multi-hop": 4, "temporal": 5, "preference": 3, "open": 2}
#: Speakers of public benchmarks, which the sample must not resemble.
BENCHMARK_NAMES = {
    *("Caroline", "Melanie", "Jon", "Gina", "John", "Maria", "Joanna", "Nate", "Tim"),
    *("Audrey", "Andrew", "James", "Deborah", "Jolene", "Evan", "Sam", "Calvin", "Dave"),
}
MONTHS = calendar.month_name[1:]

SMALL = {
    "id": "sample-99",
    "speakers": ["Ayo", "Bea"],
    "sessions": [
        {"time": "2025-03-02T18:10:00Z", "turns": [{"id": "s1t1", "speaker": "Ayo", "text": "I baked 饼 today 🙂"}]},
        {"time": "2025-04-02T20:10:00+02:00", "turns": [{"id": "s2t1", "speaker": "Bea", "text": "Save me one"}]},
    ],
    "questions": [{"question": "What did Ayo bake?", "answer": "饼", "evidence": ["s1t1"], "kind": "single-hop"}],
}

each = pytest.mark.parametrize("conversation", CONVERSATIONS, ids=lambda conversation: conversation.id)


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def texts_of(conversation: SampleConversation) -> dict[str, str]:
    return {turn.id: turn.text for turn in conversation.turns}


def test_every_file_is_loaded_under_its_own_number():
    assert len(FILES) >= 4
    assert [f"conversation_{conversation.id[-2:]}.json" for conversation in CONVERSATIONS] == [f.name for f in FILES]
    assert all(re.fullmatch(r"sample-\d\d", conversation.id) for conversation in CONVERSATIONS)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_file_holds_nothing_that_the_loader_drops(file):
    data = json.loads(file.read_text(encoding="utf-8"))
    assert set(data) == {"id", "speakers", "sessions", "questions"}
    assert all(set(session) == {"time", "turns"} for session in data["sessions"])
    assert all(set(turn) == {"id", "speaker", "text"} for session in data["sessions"] for turn in session["turns"])
    assert all(set(question) == {"question", "answer", "evidence", "kind"} for question in data["questions"])


@each
def test_sessions_are_long_enough_and_weeks_apart(conversation):
    assert len(conversation.sessions) >= 4
    assert all(len(session.turns) >= 16 for session in conversation.sessions)
    assert len(conversation.turns) >= 64
    times = [session.time for session in conversation.sessions]
    assert all(later - earlier >= 14 * DAY for earlier, later in pairwise(times))


@each
def test_turns_are_numbered_and_of_natural_length(conversation):
    for number, session in enumerate(conversation.sessions, start=1):
        assert [turn.id for turn in session.turns] == [f"s{number}t{k}" for k in range(1, len(session.turns) + 1)]
    for turn in conversation.turns:
        assert 10 <= len(turn.text.split()) <= 60, (turn.id, turn.text)
        assert turn.text == turn.text.strip()


@each
def test_both_speakers_share_the_talk(conversation):
    counts = Counter(turn.speaker for turn in conversation.turns)
    assert set(counts) == set(conversation.speakers)
    assert min(counts.values()) >= 0.4 * sum(counts.values())
    assert not BENCHMARK_NAMES & set(conversation.speakers)


@each
def test_there_are_enough_questions_of_each_kind(conversation):
    counts = Counter(question.kind for question in conversation.questions)
    assert sum(counts.values()) >= 26
    assert all(counts[kind] >= least for kind, least in KINDS.items()), counts


@each
def test_questions_name_a_speaker_and_their_evidence(conversation):
    for question in conversation.questions:
        assert any(speaker in question.question for speaker in conversation.speakers), question.question
        assert 1 <= len(set(question.evidence)) == len(question.evidence) <= 3, question.question
        if question.kind == "multi-hop":
            assert len(question.evidence) >= 2, question.question
    questions = [question.question for question in conversation.questions]
    assert len(set(questions)) == len(questions)


@each
def test_questions_do_not_copy_their_evidence(conversation):
    texts = texts_of(conversation)
    for question in conversation.questions:
        asked = " ".join(words(question.question))
        for turn_id in question.evidence:
            said = words(texts[turn_id])
            runs = {" ".join(said[start : start + 5]) for start in range(len(said) - 4)}
            assert not [run for run in runs if run in asked], (question.question, turn_id)


@each
def test_answers_come_from_their_evidence(conversation):
    texts = texts_of(conversation)
    for question in conversation.questions:
        if question.kind in ("temporal", "open"):
            continue  # a computed date, a judgement: checked by reading
        said = set(words(" ".join(texts[turn_id] for turn_id in question.evidence)))
        answered = set(words(question.answer))
        assert len(answered & said) >= 0.4 * len(answered), (question.question, question.answer)


@each
def test_temporal_answers_are_absolute_dates(conversation):
    for question in conversation.questions:
        if question.kind == "temporal":
            assert re.search(r"\b20\d\d\b", question.answer), question.answer
            assert any(month in question.answer for month in MONTHS), question.answer


def test_no_turn_and_no_question_is_repeated_between_conversations():
    turns = Counter(turn.text for conversation in CONVERSATIONS for turn in conversation.turns)
    questions = Counter(question.question for conversation in CONVERSATIONS for question in conversation.questions)
    assert max(turns.values()) == 1
    assert max(questions.values()) == 1


def test_parsing_keeps_text_order_and_time():
    conversation = parse_conversation(SMALL)
    assert [turn.id for turn in conversation.turns] == ["s1t1", "s2t1"]
    assert conversation.turns[0].text == "I baked 饼 today 🙂"
    # 2 March 2025 18:10 UTC; one month of 31 days and ten minutes of zone later
    assert [session.time for session in conversation.sessions] == [1_740_939_000.0, 1_740_939_000.0 + 31 * DAY]
    with pytest.raises(FrozenInstanceError):
        conversation.id = "other"


def test_a_time_without_zone_is_utc():
    data = copy.deepcopy(SMALL)
    data["sessions"][0]["time"] = "2025-03-02T18:10:00"
    assert parse_conversation(data).sessions[0].time == 1_740_939_000.0


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("speakers",), ["Ayo"], "not enough values"),
        (("sessions", 0, "turns", 0), {"id": "s1t1", "speaker": "Ayo"}, "lacks a part.*text"),
        (("sessions", 0, "time"), "last spring", "isoformat"),
        (("sessions", 0, "time"), 1_740_939_000, "wrong kind"),
        (("sessions", 0, "turns", 0, "text"), None, "s1t1 has a text that is not a string"),
        (("sessions", 1, "turns", 0, "id"), "s1t1", "occurs twice"),
        (("sessions", 1, "turns", 0, "speaker"), "Cem", "unknown speaker 'Cem'"),
        (("questions", 0, "evidence"), ["s9t9"], "s9t9"),
        (("questions", 0, "evidence"), [], "empty evidence"),
        (("questions", 0, "kind"), "riddle", "unknown kind 'riddle'"),
        (("questions",), None, "wrong kind"),
    ],
)
def test_a_damaged_conversation_is_refused(path, value, message):
    data = copy.deepcopy(SMALL)
    *parents, last = path
    target = data
    for key in parents:
        target = target[key]
    target[last] = value
    with pytest.raises(ValueError, match=message):
        parse_conversation(data)


@pytest.mark.parametrize("content", [b"", b'{"id": "sample-01"}', b"[1, 2]", b"\xff\xfe"])
def test_a_file_in_another_format_is_refused(tmp_path, content):
    (tmp_path / "conversation_01.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"^conversation_01\.json: "):
        read_conversations(tmp_path)


def test_a_folder_of_ones_own_is_read_in_order_of_id(tmp_path):
    for name, number in (("a.json", 2), ("b.json", 1)):
        (tmp_path / name).write_text(json.dumps({**SMALL, "id": f"own-{number}"}), encoding="utf-8")
    (tmp_path / "notes.txt").write_text("not a conversation", encoding="utf-8")
    assert [conversation.id for conversation in read_conversations(tmp_path)] == ["own-1", "own-2"]


def test_a_damaged_installation_says_what_to_do(tmp_path):
    package = tmp_path / "hins_memory"
    shutil.copytree(resources.files("hins_memory"), package, ignore=shutil.ignore_patterns("*.json", "__pycache__"))
    code = "from hins_memory.errors import HinsError\nfrom hins_memory.data.sample_conversations import load_sample\n"
    code += "try:\n    load_sample()\nexcept HinsError as error:\n    print(error)\n"

    def reading() -> str:
        result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
        return result.stdout.strip()

    assert reading() == "The packaged sample is missing. Reinstall hins-memory."
    (package / "data" / "sample" / "conversation_01.json").write_text("{}", encoding="utf-8")
    assert re.fullmatch("The packaged sample cannot be read: .* Reinstall hins-memory.", reading())
    shutil.rmtree(package / "data" / "sample")
    assert re.fullmatch("The packaged sample cannot be read: .* Reinstall hins-memory.", reading())
