"""Converts what MemoryOS stores and finds to events of the interaction log: pure functions."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from hins_adapter_memoryos.files import page_text
from hins_memory.types import Memory, RankedMemory, Retrieval, Scope, Turn, now

__all__ = [
    "knowledge_memory",
    "memory_id",
    "page_memory",
    "page_turns",
    "result_lists",
    "retrieval_event",
    "scope_of",
    "summary_memory",
    "topic_of",
]

# User input and reply have one timestamp in seconds; the reply gets a time this much later.
_STEP_SECONDS = 1e-3
#: key of `retrieve_context`'s result -> the field of its vectors
result_lists: Mapping[str, str] = {
    "retrieved_pages": "page_embedding",
    "retrieved_user_knowledge": "knowledge_embedding",
    "retrieved_assistant_knowledge": "knowledge_embedding",
}


def scope_of(user_id: Any, assistant_id: Any) -> Scope | None:
    """Return the scope of a Memoryos; None when its ids cannot be the name of an owner.

    MemoryOS makes folders of its ids, so it takes what is a path: a string, and also a `pathlib.Path`.
    """
    named = [os.fspath(one) if isinstance(one, os.PathLike) else one for one in (user_id, assistant_id)]
    if not all(isinstance(one, str) for one in named):
        return None
    return Scope.of(user=named[0], agent=named[1])


def memory_id(entry: Mapping[str, Any]) -> str:
    """Return the id under which the log knows a page, a segment, or an entry of knowledge, e.g. for `feedback`.

    Pages and segments have ids of their own; an entry of knowledge has none, and is known by its text and time.
    """
    if "knowledge" in entry:
        identity = f"{entry.get('timestamp', '')}\n{entry['knowledge']}".encode("utf-8", "surrogatepass")
        return f"knowledge_{hashlib.sha256(identity).hexdigest()[:16]}"
    return str(entry.get("page_id") or entry.get("id") or "")


def _seconds(timestamp: Any) -> float:
    """Return MemoryOS's local time as seconds since the epoch; the present time where it cannot be read."""
    try:
        return time.mktime(time.strptime(str(timestamp), "%Y-%m-%d %H:%M:%S"))
    except (ValueError, OverflowError):
        return now()


def page_turns(page: Mapping[str, Any], scope: Scope) -> list[Turn]:
    """Return the turns of a pair of utterances; an empty utterance gives no turn.

    The ids are digests of the content, so that a page, which MemoryOS makes of the pair later, has the same turn ids.
    """
    start = _seconds(page.get("timestamp"))
    turns = []
    for place, (speaker, field) in enumerate((("user", "user_input"), ("assistant", "agent_response"))):
        text = page.get(field)
        if not isinstance(text, str) or not text:
            continue
        identity = "\n".join((scope.key, str(page.get("timestamp", "")), speaker, text))
        digest = hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        turns.append(Turn(scope, scope.key, speaker, text, start + place * _STEP_SECONDS, digest))
    return turns


def topic_of(session: Mapping[str, Any] | None) -> str:
    """Return the topic of a segment and of its pages: its keywords, with its id, since two may have the same."""
    if not session:
        return ""
    words = ", ".join(str(word) for word in session.get("summary_keywords") or ())
    return f"{words} ({session.get('id', '')})" if words else str(session.get("id", ""))


def page_memory(page: Mapping[str, Any], session: Mapping[str, Any] | None, scope: Scope) -> Memory:
    """Return the event of a page: both sides of an exchange, which the user began."""
    turns = page_turns(page, scope)
    return Memory(
        id=memory_id(page),
        scope=scope,
        conversation=scope.key,
        text=page_text(page),
        speaker="user",
        turn_ids=tuple(turn.id for turn in turns),
        topic=topic_of(session),
        time=_seconds(page.get("timestamp")),
    )


def summary_memory(session: Mapping[str, Any], scope: Scope) -> Memory:
    """Return the event of a segment's summary, which is about what both said."""
    turns = [turn for page in session.get("details") or () for turn in page_turns(page, scope)]
    return Memory(
        id=memory_id(session),
        scope=scope,
        conversation=scope.key,
        text=str(session.get("summary", "")),
        turn_ids=tuple(turn.id for turn in turns),
        topic=topic_of(session),
        time=_seconds(session.get("timestamp")),
    )


def knowledge_memory(entry: Mapping[str, Any], speaker: str, sources: Sequence[str], scope: Scope) -> Memory:
    """Return the event of an entry of knowledge.

    Args:
        entry: MemoryOS's dict.
        speaker: ``user`` or ``assistant``: whom it is about.
        sources: the ids of the turns of the pages that it was extracted from.
        scope: whose conversation it came from; assistants share their knowledge, the log keeps it apart by user.
    """
    time = _seconds(entry.get("timestamp"))
    text = str(entry.get("knowledge", ""))
    return Memory(memory_id(entry), scope, scope.key, text, speaker, tuple(sources), time=time)


def retrieval_event(
    query: str, found: Sequence[tuple[Mapping[str, Any], float]], encoder_version: str, scope: Scope
) -> Retrieval:
    """Return the event of a retrieval: what its three lists hold, best first, each memory once.

    Args:
        query: what was asked.
        found: MemoryOS's dicts with their cosines.
        encoder_version: what served.
        scope: who asked.
    """
    results: dict[str, RankedMemory] = {}
    for entry, score in sorted(found, key=lambda pair: pair[1], reverse=True):
        text = str(entry["knowledge"]) if "knowledge" in entry else page_text(entry)
        if id_ := memory_id(entry):
            results.setdefault(id_, RankedMemory(id_, text, score))
    return Retrieval(scope=scope, query=query, results=tuple(results.values()), encoder_version=encoder_version)
