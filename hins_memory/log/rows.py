"""Events to database rows and back; the one place that knows how a field is stored."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Mapping
from typing import Any

import sqlalchemy as sa

from hins_memory.common.text import well_formed
from hins_memory.errors import LogError
from hins_memory.types import Answer, Feedback, Memory, Polarity, RankedMemory, Retrieval, Scope, Turn

__all__ = ["EventRefusedError", "Row"]

Row = dict[str, Any]

#: Longest id and longest owner key in bytes: PostgreSQL cannot index more than about 2,700 bytes together.
MAX_ID_BYTES = 512
MAX_OWNER_BYTES = 2000
#: Seconds since the Unix epoch of 0001-01-02 and 9999-12-31: a day less at each end, for zones.
MIN_TIME, MAX_TIME = -62135510400.0, 253402214400.0
_POLARITIES = ("POSITIVE", "NEGATIVE")


class EventRefusedError(LogError):
    """An event that the log can never hold, e.g. one with an id of 100 kB; trying again is pointless."""


def clean(value: object) -> str:
    """Return a text as every database can hold it: NUL and lone surrogates become U+FFFD, None becomes ""."""
    # Exactly a str: drivers store subclasses of str, such as members of an Enum, in different ways.
    text = str.__str__(value) if isinstance(value, str) else "" if value is None else str(value)
    return well_formed(text).replace("\x00", "\ufffd")


def clean_id(value: object, what: str) -> str:
    """Return an identifier as text.

    Raises:
        EventRefusedError: it is too long to be indexed.
    """
    text = clean(value)
    if len(text.encode("utf-8")) > MAX_ID_BYTES:
        raise EventRefusedError(
            f"A {what} starting with {text[:20]!r} has over {MAX_ID_BYTES} bytes.", "Use a shorter identifier."
        )
    return text


def clean_scope(scope: Scope) -> Scope:
    """Return the scope with texts that every database can hold.

    Raises:
        EventRefusedError: its key is too long to be indexed.
    """
    cleaned = Scope(user=clean(scope.user), agent=clean(scope.agent), run=clean(scope.run), tenant=clean(scope.tenant))
    if len(cleaned.owner.key.encode("utf-8")) > MAX_OWNER_BYTES:
        raise EventRefusedError(f"A scope has over {MAX_OWNER_BYTES} bytes.", "Use shorter names in the scope.")
    return cleaned


def clean_number(value: float, default: float = 0.0) -> float:
    """Return a finite float; a database stores NaN as NULL, and JSON has neither NaN nor infinity."""
    try:
        # + 0.0: SQLite does not tell -0.0 from 0.0.
        number = float(value) + 0.0
    except OverflowError:
        # An integer beyond every float.
        return default
    return number if math.isfinite(number) else default


def clean_time(value: float) -> float:
    """Return a time in seconds since the Unix epoch; a time outside the years 1 to 9999 becomes 0.0, unknown.

    `datetime` cannot show other years, and an event of the far future would always count as the latest and be held out.
    """
    time = clean_number(value)
    return time if MIN_TIME <= time < MAX_TIME else 0.0


def turn_row(turn: Turn) -> Row:
    """Return the row of a turn."""
    return {
        "id": clean_id(turn.id, "turn id"),
        **_scope_row(turn.scope),
        "conversation": clean(turn.conversation),
        "speaker": clean(turn.speaker),
        "text": clean(turn.text),
        "time": clean_time(turn.time),
    }


def memory_row(memory: Memory) -> Row:
    """Return the row of a memory as it is when first written."""
    time = clean_time(memory.time)
    return {
        "id": clean_id(memory.id, "memory id"),
        **_scope_row(memory.scope),
        "conversation": clean(memory.conversation),
        "speaker": clean(memory.speaker),
        "text": clean(memory.text),
        "topic": clean(memory.topic),
        "turn_ids": [clean(turn_id) for turn_id in memory.turn_ids],
        "time": time,
        "updated_at": time,
    }


def retrieval_row(retrieval: Retrieval) -> Row:
    """Return the row of a retrieval, without its results."""
    return {
        "id": clean_id(retrieval.id, "retrieval id"),
        **_scope_row(retrieval.scope),
        "query": clean(retrieval.query),
        "encoder_version": clean(retrieval.encoder_version),
        "time": clean_time(retrieval.time),
    }


def result_rows(retrieval: Retrieval) -> list[Row]:
    """Return the rows of a retrieval's results; `rank` counts from 0."""
    return [
        {
            "retrieval_id": clean_id(retrieval.id, "retrieval id"),
            "rank": rank,
            "memory_id": clean_id(result.memory_id, "memory id"),
            "text": clean(result.text),
            "score": clean_number(result.score),
        }
        for rank, result in enumerate(retrieval.results)
    ]


def answer_row(answer: Answer) -> Row:
    """Return the row of an answer."""
    return _with_digest(
        {
            "retrieval_id": clean_id(answer.retrieval_id, "retrieval id"),
            "text": clean(answer.text),
            "time": clean_time(answer.time),
        }
    )


def feedback_row(feedback: Feedback) -> Row:
    """Return the row of a feedback; `retrieval_id` is still "" where the latest retrieval is meant.

    Raises:
        EventRefusedError: the polarity is neither POSITIVE nor NEGATIVE.
    """
    if feedback.polarity not in _POLARITIES:
        raise EventRefusedError(f"The feedback {feedback.polarity!r} is not known.", "Use POSITIVE or NEGATIVE.")
    return _with_digest(
        {
            "memory_id": clean_id(feedback.memory_id, "memory id"),
            "retrieval_id": clean_id(feedback.retrieval_id, "retrieval id"),
            "polarity": feedback.polarity,
            "time": clean_time(feedback.time),
        }
    )


def row_scope(row: sa.Row[Any]) -> Scope:
    """Return the scope of a row."""
    return Scope(user=row.user, agent=row.agent, run=row.run, tenant=row.tenant)


def row_turn(row: sa.Row[Any]) -> Turn:
    """Return the turn of a row."""
    return Turn(row_scope(row), row.conversation, row.speaker, row.text, row.time, row.id)


def row_memory(row: sa.Row[Any], turns: Collection[str] | None = None) -> Memory:
    """Return the memory of a row, with those of its turn ids that are in `turns`; its time is when it was added."""
    turn_ids = tuple(turn_id for turn_id in row.turn_ids if turns is None or turn_id in turns)
    return Memory(row.id, row_scope(row), row.conversation, row.text, row.speaker, turn_ids, row.topic, row.time)


def row_retrieval(row: sa.Row[Any], results: tuple[RankedMemory, ...]) -> Retrieval:
    """Return the retrieval of a row and its results."""
    return Retrieval(row_scope(row), row.query, results, row.encoder_version, row.time, row.id)


def row_result(row: sa.Row[Any]) -> RankedMemory:
    """Return the ranked memory of a row."""
    return RankedMemory(row.memory_id, row.text, row.score)


def row_answer(row: sa.Row[Any]) -> Answer:
    """Return the answer of a row."""
    return Answer(row.retrieval_id, row.text, row.time)


def row_feedback(row: sa.Row[Any]) -> Feedback:
    """Return the feedback of a row."""
    polarity: Polarity = "POSITIVE" if row.polarity == "POSITIVE" else "NEGATIVE"
    return Feedback(row.memory_id, polarity, row.retrieval_id, row.time)


def _scope_row(scope: Scope) -> Row:
    cleaned = clean_scope(scope)
    parts = {"tenant": cleaned.tenant, "user": cleaned.user, "agent": cleaned.agent, "run": cleaned.run}
    return {"owner": cleaned.owner.key, **parts}


def _with_digest(row: Mapping[str, Any]) -> Row:
    """Add a digest of the fields as the id, so that an outcome that is written twice is stored once."""
    digest = hashlib.sha256(json.dumps(row, sort_keys=True).encode("utf-8")).hexdigest()
    return {"id": digest, **row}
