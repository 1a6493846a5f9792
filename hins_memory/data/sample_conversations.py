"""The packaged sample conversations: invented long-term chats with questions, answers and evidence."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import resources
from typing import TYPE_CHECKING, Any, Literal, get_args

from hins_memory.errors import HinsError

if TYPE_CHECKING:
    from importlib.abc import Traversable

__all__ = [
    "QuestionKind",
    "SampleConversation",
    "SampleQuestion",
    "SampleSession",
    "SampleTurn",
    "load_sample",
    "parse_conversation",
    "read_conversations",
]

#: What a question needs: one turn, two or more turns, a date, a preference, a judgement.
QuestionKind = Literal["single-hop", "multi-hop", "temporal", "preference", "open"]


@dataclass(frozen=True, slots=True)
class SampleTurn:
    """One utterance. `id` is unique in its conversation, e.g. ``s2t4``: the fourth turn of the second session."""

    id: str
    speaker: str
    text: str


@dataclass(frozen=True, slots=True)
class SampleSession:
    """One session of a conversation. `time` is when it began, in seconds since the Unix epoch (UTC)."""

    time: float
    turns: tuple[SampleTurn, ...]


@dataclass(frozen=True, slots=True)
class SampleQuestion:
    """A question about one conversation, its short answer, and `evidence`: the ids of the turns that answer it."""

    question: str
    answer: str
    evidence: tuple[str, ...]
    kind: QuestionKind


@dataclass(frozen=True, slots=True)
class SampleConversation:
    """A conversation of two speakers over several sessions, in order of time, and the questions about it."""

    id: str
    speakers: tuple[str, str]
    sessions: tuple[SampleSession, ...]
    questions: tuple[SampleQuestion, ...]

    @property
    def turns(self) -> tuple[SampleTurn, ...]:
        """Every turn of every session, in order of time."""
        return tuple(turn for session in self.sessions for turn in session.turns)


def load_sample() -> list[SampleConversation]:
    """Read the packaged conversations, ordered by id.

    Raises:
        HinsError: the packaged files are missing or damaged.
    """
    try:
        conversations = read_conversations(resources.files("hins_memory.data").joinpath("sample"))
    except (OSError, ValueError) as error:
        raise HinsError(f"The packaged sample cannot be read: {error}.", "Reinstall hins-memory.") from error
    if not conversations:
        raise HinsError("The packaged sample is missing.", "Reinstall hins-memory.")
    return conversations


def read_conversations(folder: Traversable) -> list[SampleConversation]:
    """Read every ``*.json`` of a folder (a `pathlib.Path` will do) in the sample's format, ordered by id.

    Raises:
        OSError: the folder or a file cannot be read.
        ValueError: a file is not JSON in UTF-8, or not in the sample's format.
    """
    conversations = []
    for file in folder.iterdir():
        if file.name.endswith(".json"):
            try:
                conversations.append(parse_conversation(json.loads(file.read_text(encoding="utf-8"))))
            except ValueError as error:
                raise ValueError(f"{file.name}: {error}") from error
    return sorted(conversations, key=lambda conversation: conversation.id)


def parse_conversation(data: Mapping[str, Any]) -> SampleConversation:
    """Turn one decoded JSON object of the sample's format into a conversation, checking what the code relies on.

    Args:
        data: keys `id`, `speakers` (two names), `sessions` (each `time` in ISO 8601 and `turns`), `questions`.

    Raises:
        ValueError: a key is missing, a turn id occurs twice, a speaker or a kind of question is unknown, or a
            question's evidence names no turn of the conversation.
    """
    if not isinstance(data, Mapping):
        raise ValueError(f"a conversation is a JSON object, not a {type(data).__name__}")
    name = data.get("id", "a conversation without an id")
    try:
        first, second = data["speakers"]
        conversation = SampleConversation(
            id=data["id"],
            speakers=(first, second),
            sessions=tuple(_session(session) for session in data["sessions"]),
            questions=tuple(_question(question) for question in data["questions"]),
        )
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{name} lacks a part or has one of the wrong kind: {error!r}") from error
    _check(conversation)
    return conversation


def _session(data: Mapping[str, Any]) -> SampleSession:
    # Python 3.10 does not know the suffix Z
    began = datetime.fromisoformat(data["time"].replace("Z", "+00:00"))
    if began.tzinfo is None:
        began = began.replace(tzinfo=timezone.utc)
    turns = tuple(SampleTurn(id=turn["id"], speaker=turn["speaker"], text=turn["text"]) for turn in data["turns"])
    return SampleSession(time=began.timestamp(), turns=turns)


def _question(data: Mapping[str, Any]) -> SampleQuestion:
    return SampleQuestion(
        question=data["question"], answer=data["answer"], evidence=tuple(data["evidence"]), kind=data["kind"]
    )


def _check(conversation: SampleConversation) -> None:
    ids: set[str] = set()
    for turn in conversation.turns:
        if turn.id in ids:
            raise ValueError(f"{conversation.id}: the turn id {turn.id} occurs twice")
        if not isinstance(turn.text, str):
            raise ValueError(f"{conversation.id}: turn {turn.id} has a text that is not a string")
        if turn.speaker not in conversation.speakers:
            raise ValueError(f"{conversation.id}: turn {turn.id} has the unknown speaker {turn.speaker!r}")
        ids.add(turn.id)
    for question in conversation.questions:
        unknown = [turn_id for turn_id in question.evidence if turn_id not in ids]
        if unknown or not question.evidence:
            raise ValueError(f"{conversation.id}: {question.question!r} has the unknown or empty evidence {unknown}")
        if question.kind not in get_args(QuestionKind):
            raise ValueError(f"{conversation.id}: {question.question!r} is of the unknown kind {question.kind!r}")
