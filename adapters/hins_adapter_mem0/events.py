"""Converts Mem0's calls to events of the interaction log: pure functions of arguments and results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hins_memory.types import Deletion, Event, Memory, RankedMemory, Retrieval, Scope, Turn, name_of, now

__all__ = [
    "deletion_event",
    "memory_event",
    "result_events",
    "result_items",
    "retrieval_event",
    "scope_of",
    "search_scope",
]

_IDS = ("user_id", "agent_id", "run_id")
# What stands for any value in Mem0's filters.
_ANY = "*"


def _entity_id(value: Any) -> Any:
    """Return an id as Mem0 uses it: as a string, trimmed; "" for ids that Mem0 refuses."""
    if value is None:
        return None
    text = (value if isinstance(value, str) else str(value)).strip()
    return "" if any(letter.isspace() for letter in text) else text


def _scope(ids: Mapping[str, Any]) -> Scope | None:
    return Scope.of(user=ids.get("user_id"), agent=ids.get("agent_id"), run=ids.get("run_id"))


def scope_of(ids: Mapping[str, Any]) -> Scope | None:
    """Return the scope that Mem0 sees in user_id, agent_id and run_id; None when they name no user, agent or session.

    Args:
        ids: the arguments of a call, or a stored payload.
    """
    # In a payload, Mem0 treats an empty id as missing.
    return _scope({name: _entity_id(ids.get(name)) for name in _IDS if ids.get(name) != ""})


def search_scope(filters: Mapping[str, Any]) -> Scope | None:
    """Return the scope that a search with these filters covers; None for a search across users, or without a name.

    Mem0 combines the ids at the top level and those under AND; the last value of a name counts. Conditions under OR
    and NOT only restrict this further. An agent or run that may have several values, by a wildcard or a list, is not
    part of the scope.
    """
    given: dict[str, Any] = {}
    for key, value in filters.items():
        if key in _IDS:
            given[key] = _entity_id(value)
        elif key == "AND" and isinstance(value, Sequence):
            for condition in value:
                given |= {name: _only_value(condition[name]) for name in _IDS if name in condition}
    open_ids = {name for name in _IDS if given.get(name) == _ANY or (name not in given and _narrowed(filters, name))}
    if "user_id" in open_ids:
        return None
    return _scope({name: value for name, value in given.items() if name not in open_ids})


def _only_value(condition: Any) -> Any:
    """Return the only value that a condition on an id under AND allows; `_ANY` if there are several."""
    if isinstance(condition, Mapping):
        if set(condition) == {"eq"}:
            condition = condition["eq"]
        elif set(condition) == {"in"} and isinstance(condition["in"], list) and len(condition["in"]) == 1:
            condition = condition["in"][0]
    # Mem0 neither trims nor converts nested values: only a string can equal a stored id.
    return condition if isinstance(condition, str) else _ANY


def _narrowed(filters: Mapping[str, Any], name: str) -> bool:
    """Return whether a nested condition restricts an id, which can then have more than one value."""
    nested = ("OR", "NOT", "$or", "$not", "$and")
    conditions = [one for key in nested for one in filters.get(key) or () if isinstance(one, Mapping)]
    return any(name in one for one in conditions)


def result_items(result: Any) -> list[Mapping[str, Any]]:
    """Return the items under ``results`` that have an id and a text."""
    items = result.get("results") if isinstance(result, Mapping) else None
    if not isinstance(items, Sequence):
        return []
    return [
        item
        for item in items
        if isinstance(item, Mapping) and item.get("id") not in (None, "") and isinstance(item.get("memory"), str)
    ]


def result_events(
    items: Sequence[Mapping[str, Any]],
    turns: Sequence[tuple[str, Turn]],
    scope: Scope,
    payloads: Mapping[str, Mapping[str, Any]],
) -> Iterator[Event]:
    """Yield the events of an `add`: its turns, and the memories made from them.

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
    if actor := name_of(fields.get("actor_id") or None):
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


def memory_event(memory_id: str, payload: Mapping[str, Any]) -> Memory | None:
    """Return the event of a memory as it is stored now, e.g. after an update; None when it names no owner.

    Its turns, and a speaker who is not in the payload, are left empty: the log keeps the values that it has.
    """
    scope = scope_of(payload)
    if scope is None:
        return None
    return Memory(
        memory_id, scope, scope.key, str(payload.get("data", "")), name_of(payload.get("actor_id") or None) or ""
    )


def deletion_event(memory_id: str, payload: Mapping[str, Any]) -> Deletion:
    """Return the event of a deleted memory; without an owner in the payload, its id alone names it.

    Raises:
        ValueError: the id is empty; such an event would mean everything in the scope.
    """
    if not memory_id:
        raise ValueError("a memory without an id was deleted")
    return Deletion(scope=scope_of(payload) or Scope(), memory_id=memory_id)
