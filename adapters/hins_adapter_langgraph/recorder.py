"""What LangGraph's operations mean as events."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from langgraph.store.base import PutOp, SearchOp

from hins_adapter_langgraph.naming import item_id, joined, text_fields, texts_of
from hins_memory.log.capture import never_raises
from hins_memory.sdk.recorder import Recorder
from hins_memory.types import Deletion, Memory, RankedMemory, Retrieval, Scope

__all__ = ["StoreRecorder"]


class StoreRecorder(Recorder):
    """Records the operations on a store, in their order.

    Args:
        owner: returns whose data a namespace holds, None for what has no owner.
    """

    def __init__(self, owner: Callable[[tuple[str, ...]], Scope | None]) -> None:
        super().__init__()
        self._owner = owner

    def batch(self, store: Any, ops: Sequence[Any], results: Sequence[Any], versions: Mapping[int, str]) -> None:
        """Record what a batch of operations did on a store; never raises.

        Args:
            store: the store.
            ops: the operations.
            results: what they returned.
            versions: the encoder versions of searches, by their places; none for the store's own.
        """
        if not self.on:
            return
        for n, (op, result) in enumerate(zip(ops, results, strict=False)):
            if isinstance(op, PutOp):
                self._put(store, op)
            elif isinstance(op, SearchOp) and op.query:
                self._searched(store, op, result or [], versions.get(n, ""))

    def scope_of(self, op: Any) -> Scope | None:
        """Return the owner of a search; None where it names none, or the function that decides fails."""
        try:
            return self._scope(op.namespace_prefix)
        except Exception:
            return None

    def _scope(self, namespace: Any) -> Scope | None:
        """Return the owner of a namespace; None for what is not recorded."""
        return self._owner(tuple(namespace))

    @never_raises(None)
    def _put(self, store: Any, op: Any) -> None:
        scope = self._named(op.namespace, op.key)
        if scope is None:
            return
        id_ = item_id(op.namespace, op.key)
        text = "" if op.value is None or op.index is False else _text(store, op)
        if text:
            self.record(Memory(id_, scope, _conversation(op.namespace), text))
        else:
            # Also of an item that a search by meaning cannot find any more.
            self.record(Deletion(scope, id_))

    @never_raises(None)
    def _searched(self, store: Any, op: Any, found: Sequence[Any], version: str) -> None:
        scope = self._named(op.namespace_prefix, "")
        if scope is None:
            return
        fields, ranked = text_fields(store), []
        for item in found:
            # Without a score it was not found by meaning; with another owner it is not this one's to learn from.
            owner = None if item.score is None else self._scope(item.namespace)
            if owner is not None and owner.owner == scope.owner:
                text = joined(texts_of(item.value, fields))
                ranked.append(RankedMemory(item_id(item.namespace, item.key), text, float(item.score)))
        if ranked or (fields and not found):
            self.retrieved(Retrieval(scope, op.query, tuple(ranked), version))

    def _named(self, namespace: Any, key: Any) -> Scope | None:
        try:
            item_id(namespace, key)
            scope = self._scope(namespace)
        except (UnicodeError, ValueError, TypeError):
            scope = None
        if scope is None:
            self.left_out()
        return scope


def _text(store: Any, op: Any) -> str:
    fields = text_fields(store)
    if not fields:
        return ""
    return joined(texts_of(op.value, fields)) or joined(texts_of(op.value, [(p, p) for p in op.index or ()]))


def _conversation(namespace: Sequence[str]) -> str:
    """Return the thread of the graph that is running, else the namespace."""
    from langgraph.config import get_config

    try:
        thread = get_config().get("configurable", {}).get("thread_id")
    except RuntimeError:
        thread = None
    return str(thread) if thread else "/".join(namespace)
