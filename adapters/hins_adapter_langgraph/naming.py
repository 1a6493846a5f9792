"""Whose data a namespace holds, and the ids and texts of items."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, unquote

from langgraph.store.base import PutOp, get_text_at_path, tokenize_path

from hins_memory.errors import ConfigError
from hins_memory.types import Scope

__all__ = ["Fields", "Owners", "fields_of", "id_of", "item_id", "owners_of", "place_of", "text_of"]

#: How the owner is found in a namespace: a pattern like ``("memories", "{user}")``, or a function.
Owners = Sequence[str] | Callable[[tuple[str, ...]], Scope | None]
#: paths into an item's value, each with its tokens
Fields = Sequence[tuple[str, Any]]
_OWNERS = {"user", "agent", "run", "tenant"}
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


def id_of(op: Any) -> str:
    """Return the id of the item of a put, or of the namespace of a search; "" where the log cannot name it."""
    try:
        return item_id(op.namespace, op.key) if isinstance(op, PutOp) else item_id(op.namespace_prefix, "")
    except (TypeError, ValueError):
        return ""


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
    places = {found[1]: index for index, part in enumerate(pattern) if (found := _PLACE.fullmatch(part))}
    fixed = {index: part for index, part in enumerate(pattern) if part != "*" and not _PLACE.fullmatch(part)}
    once = len(places) + len(fixed) + pattern.count("*") == len(pattern)
    if not once or not places.keys() <= _OWNERS or places.keys() <= {"tenant"}:
        raise ConfigError(
            f"The namespace {pattern!r} names no owner.",
            'Use parts like "{user}", "{agent}", "{run}" or "{tenant}", each once, e.g. ("memories", "{user}").',
        )

    def owner(labels: tuple[str, ...]) -> Scope | None:
        if len(labels) < len(pattern) or any(labels[index] != part for index, part in fixed.items()):
            return None
        # Scope.of refuses the empty label, which would otherwise count as "not given".
        return Scope.of(**{part: labels[index] for part, index in places.items()})

    return owner


def _whole(labels: tuple[str, ...]) -> Scope | None:
    # One label alone, like ("memories",), is most often what all users share.
    return Scope.of(user=item_id(labels[:-1], labels[-1])) if len(labels) > 1 and all(labels) else None


def fields_of(store: Any, index: Any = None) -> Fields:
    """Return the paths that a store embeds of an item.

    Args:
        store: the store; one without an index embeds nothing.
        index: what the item was put with: paths of its own, False for none, None for those of the store.
    """
    if index is None:
        config: Mapping[str, Any] = getattr(store, "index_config", None) or {}
        return list(config.get("__tokenized_fields") or [])
    return [(path, tokenize_path(path)) for path in index or ()]


def text_of(value: Mapping[str, Any], fields: Fields) -> str:
    """Return the texts at some paths of an item's value as one."""
    return "\n".join(text for _, tokens in fields for text in get_text_at_path(value, tokens))
