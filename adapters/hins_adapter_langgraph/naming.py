"""Whose data a namespace holds, and the ids and texts of items."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, unquote

from langgraph.store.base import get_text_at_path

from hins_memory.errors import ConfigError
from hins_memory.types import Scope

__all__ = ["OWNERS", "Owners", "item_id", "joined", "owners_of", "place_of", "text_fields", "texts_of"]

#: How the owner is found in a namespace: a pattern like ``("memories", "{user}")``, or a function.
Owners = Sequence[str] | Callable[[tuple[str, ...]], Scope | None]
OWNERS = ("user", "agent", "run", "tenant")
_PLACE = re.compile(r"\{(\w+)\}")


def item_id(namespace: Sequence[Any], key: Any) -> str:
    """Return the id under which the log knows an item: its namespace and key, percent-encoded, joined by ``/``.

    Raises:
        ValueError: a part is not a string, or cannot be encoded.
    """
    if not all(isinstance(part, str) for part in (*namespace, key)):
        raise ValueError("namespaces and keys are strings")
    return "/".join(quote(part, safe=" ") for part in (*namespace, key))


def place_of(id_: str) -> tuple[tuple[str, ...], str]:
    """Return the namespace and key of an id that `item_id` made."""
    *namespace, key = (unquote(part) for part in id_.split("/"))
    return tuple(namespace), key


def owners_of(namespace: Owners | None) -> Callable[[tuple[str, ...]], Scope | None]:
    """Return the function from a namespace to its owner, or to None where it names no owner.

    Args:
        namespace: a pattern with one part a label: ``{user}``, ``{agent}``, ``{run}`` and ``{tenant}`` name the owner,
            ``*`` stands for any label, other labels for themselves. A namespace may go on after it. A function
            may decide instead. None makes every namespace of at least two labels an owner of its own.

    Raises:
        ConfigError: the pattern names no owner.
    """
    if namespace is None:
        return _whole
    if callable(namespace):
        return namespace
    pattern = (namespace,) if isinstance(namespace, str) else tuple(namespace)
    places = {index: found[1] for index, part in enumerate(pattern) if (found := _PLACE.fullmatch(part))}
    if (
        set(places.values()) - set(OWNERS)
        or len(set(places.values())) < len(places)
        or set(places.values()) <= {"tenant"}
    ):
        raise ConfigError(
            f"The namespace {pattern!r} names no owner.",
            'Use parts like "{user}", "{agent}", "{run}" or "{tenant}", each once, e.g. ("memories", "{user}").',
        )

    def owner(labels: tuple[str, ...]) -> Scope | None:
        if len(labels) < len(pattern):
            return None
        fixed = (index for index, part in enumerate(pattern) if index not in places and part != "*")
        if any(labels[index] != pattern[index] for index in fixed):
            return None
        # Scope.of refuses the empty label, which would otherwise count as "not given".
        named: dict[str, Any] = {part: labels[index] for index, part in places.items()}
        return Scope.of(**named)

    return owner


def _whole(labels: tuple[str, ...]) -> Scope | None:
    # One label alone, like ("memories",), is most often what all users share.
    return Scope.of(user=item_id(labels[:-1], labels[-1])) if len(labels) > 1 and all(labels) else None


def text_fields(store: Any) -> list[tuple[str, Any]]:
    """Return the paths that a store embeds of every item, each with its tokens; empty without an index."""
    config: Mapping[str, Any] = getattr(store, "index_config", None) or {}
    return list(config.get("__tokenized_fields") or [])


def texts_of(value: Mapping[str, Any], fields: Sequence[tuple[str, Any]]) -> dict[str, list[str]]:
    """Return the texts that a store embeds of an item's value, by the path that they come from."""
    found = {path: get_text_at_path(value, tokens) for path, tokens in fields}
    return {path: texts for path, texts in found.items() if texts}


def joined(texts: Mapping[str, Sequence[str]]) -> str:
    """Return the texts of an item as one."""
    return "\n".join(text for several in texts.values() for text in several)
