"""What Mem0's calls mean as events of the interaction log: pure functions from arguments and results to events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hins_memory.types import Deletion, Event, Memory, RankedMemory, Retrieval, Scope, Turn, now

__all__ = [
    "deletion_event",
    "memory_event",
    "message_turns",
    "result_events",
    "result_items",
    "retrieval_event",
    "scope_of",
]

# Messages of one call happen in their order; this is the least step that a float of today's time can hold well.
_STEP_SECONDS = 1e-6


def scope_of(ids: Mapping[str, Any]) -> Scope:
    """Return the scope that Mem0 sees in user_id, agent_id and run_id, which it turns into trimmed strings."""

    def text(name: str) -> str:
        value = ids.get(name)
        return str(value).strip() if isinstance(value, (str, int)) else ""

    return Scope(user=text("user_id"), agent=text("agent_id"), run=text("run_id"))


def message_turns(messages: Any, scope: Scope) -> list[tuple[str, Turn]]:
    """Return (role, turn) for every message that says something; whatever is malformed is left out.

    The conversation is the scope itself: one run of an owner, or all that the owner says when no run is given.
    """
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    elif isinstance(messages, Mapping):
        messages = [messages]
    start = now()
    turns: list[tuple[str, Turn]] = []
    for message in messages if isinstance(messages, Sequence) else ():
        if not isinstance(message, Mapping):
            continue
        role, text = message.get("role"), _content_text(message.get("content"))
        # A system message is an instruction to the model, not something that was said.
        if not isinstance(role, str) or role == "system" or not text:
            continue
        name = message.get("name")
        speaker = name if isinstance(name, str) and name else role
        time = start + len(turns) * _STEP_SECONDS
        turns.append((role, Turn(scope=scope, conversation=scope.key, speaker=speaker, text=text, time=time)))
    return turns


def _content_text(content: Any) -> str:
    """Return the text of a message: itself, or the text parts of a multimodal one joined as Mem0 joins them."""
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence):
        parts = [part.get("text") for part in content if isinstance(part, Mapping) and part.get("type") == "text"]
        return " ".join(part for part in parts if isinstance(part, str))
    return ""


def result_items(result: Any) -> list[Mapping[str, Any]]:
    """Return the items under ``results`` that have an id and a text."""
    items = result.get("results") if isinstance(result, Mapping) else None
    if not isinstance(items, Sequence):
        return []
    return [
        item
        for item in items
        if isinstance(item, Mapping) and item.get("id") is not None and isinstance(item.get("memory"), str)
    ]


def result_events(
    items: Sequence[Mapping[str, Any]],
    turns: Sequence[tuple[str, Turn]],
    scope: Scope,
    payloads: Mapping[str, Mapping[str, Any]],
) -> Iterator[Event]:
    """Yield the events of an `add`: its turns, and the memories that came out of them.

    Args:
        items: what `add` returned.
        turns: what `message_turns` made of its messages.
        scope: the call's scope.
        payloads: the stored payloads by memory id, for memories that an LLM wrote; empty for messages stored as they
            are, each of which then comes from the one turn with its text.
    """
    for _, turn in turns:
        yield turn
    all_ids = tuple(turn.id for _, turn in turns)
    waiting = list(turns)
    for item in items:
        payload = payloads.get(str(item["id"]), {})
        sources: tuple[str, ...] = all_ids
        time = turns[-1][1].time if turns else now()
        match = None if payload else next((pair for pair in waiting if pair[1].text == item["memory"]), None)
        if match is not None:
            waiting.remove(match)
            sources, time = (match[1].id,), match[1].time
        if str(item.get("event", "ADD")).upper() == "DELETE":
            yield Deletion(scope=scope, memory_id=str(item["id"]))
        else:
            speaker = _speaker({**payload, **{key: value for key, value in item.items() if value}}, turns)
            yield Memory(str(item["id"]), scope, scope.key, str(item["memory"]), speaker, sources, time=time)


def _speaker(fields: Mapping[str, Any], turns: Sequence[tuple[str, Turn]]) -> str:
    """Return whom a memory is by or about: the actor's name, else the name behind the role if only one has it."""
    actor = fields.get("actor_id")
    if isinstance(actor, str) and actor:
        return actor
    role = fields.get("attributed_to") or fields.get("role")
    if not isinstance(role, str):
        return ""
    names = {turn.speaker for turn_role, turn in turns if turn_role == role}
    return names.pop() if len(names) == 1 else role


def retrieval_event(query: str, scope: Scope, result: Any, encoder_version: str) -> Retrieval:
    """Return the event of a `search`, its results in Mem0's order."""
    ranked = tuple(
        RankedMemory(str(item["id"]), str(item["memory"]), float(item.get("score") or 0.0))
        for item in result_items(result)
    )
    return Retrieval(scope=scope, query=query, results=ranked, encoder_version=encoder_version)


def memory_event(memory_id: str, payload: Mapping[str, Any]) -> Memory:
    """Return the event of a memory as it is stored now, e.g. after an update.

    Its turns, and a speaker who is not in the payload, are left empty: the log keeps what it knew of them.
    """
    scope = scope_of(payload)
    actor = payload.get("actor_id")
    speaker = actor if isinstance(actor, str) else ""
    return Memory(memory_id, scope, scope.key, str(payload.get("data", "")), speaker)


def deletion_event(memory_id: str, payload: Mapping[str, Any]) -> Deletion:
    """Return the event of a deleted memory."""
    return Deletion(scope=scope_of(payload), memory_id=memory_id)
