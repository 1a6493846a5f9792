"""Records the calls and outcomes of a Mem0 memory; never raises into the agent."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any

from hins_adapter_mem0.events import (
    deletion_event,
    memory_event,
    result_events,
    result_items,
    retrieval_event,
    scope_of,
    search_scope,
)
from hins_adapter_mem0.indexes import open_index
from hins_adapter_mem0.stores import GuardedStore
from hins_memory.log.capture import never_raises
from hins_memory.plugins.protocols import Record
from hins_memory.sdk.context import set_to
from hins_memory.sdk.messages import message_turns
from hins_memory.sdk.recorder import Recorder

__all__ = ["Mem0Recorder", "about_to_be_deleted", "deleting", "deletions", "stored_memories"]

logger = logging.getLogger(__name__)


class Mem0Recorder(Recorder):
    """Turns the calls of one memory into events."""

    @never_raises(None)
    def added(self, memory: Any, messages: Any, arguments: Mapping[str, Any], result: Any) -> None:
        """Record an `add`. Memories that an LLM wrote are read from the store: the result has no speakers."""
        scope = scope_of(arguments)
        if scope is None:
            self.left_out()
            return
        items = result_items(result)
        inferred = arguments.get("infer", True) or arguments.get("memory_type")
        payloads: dict[str, Mapping[str, Any]] = {}
        if inferred:
            found = {str(item["id"]): stored_memory(memory, item["id"]) for item in items}
            payloads = {id_: stored.payload for id_, stored in found.items() if stored is not None}
        for event in result_events(items, message_turns(messages, scope), scope, payloads):
            self.record(event)

    @never_raises("")
    def searched(self, query: str, filters: Mapping[str, Any] | None, result: Any, encoder_version: str) -> str:
        """Record a `search` and return the retrieval's id; "" when it is not recorded, as when it is across users."""
        scope = search_scope(filters or {})
        if scope is None or not isinstance(query, str):
            return ""
        return self.retrieved(retrieval_event(query, scope, result, encoder_version))

    @never_raises(None)
    def updated(self, memory: Any, memory_id: Any) -> None:
        """Record a memory as it is stored after an `update`."""
        stored = stored_memory(memory, memory_id)
        event = None if stored is None else memory_event(stored.id, stored.payload)
        if event is not None:
            self.record(event)
        elif stored is not None:
            self.left_out()

    @never_raises(None)
    def deleted(self, deleted_memories: Iterable[Record]) -> None:
        """Record what was deleted, one memory at a time: the log may hold more of the same scope than this store."""
        for stored in deleted_memories:
            self.record(deletion_event(stored.id, stored.payload))


def stored_memory(memory: Any, memory_id: Any) -> Record | None:
    """Return what a memory's store holds under an id; None when there is nothing, or it cannot be read."""
    try:
        row = memory.vector_store.get(vector_id=memory_id)
    except Exception:
        # Mem0 gets the same error next, and raises it to the caller.
        logger.debug("%s could not be read", memory_id, exc_info=True)
        return None
    return None if row is None else _stored(row)


def _stored(row: Any) -> Record:
    payload = dict(row.payload or {})
    return Record(str(row.id), str(payload.get("data", "")), payload)


def stored_memories(store: Any) -> list[Record]:
    """Return every memory in a store; [] when it cannot be read."""
    try:
        index = open_index(store if isinstance(store, GuardedStore) else GuardedStore(store, None), "memories")
        return [record for page in index.pages(1000) for record in page]
    except Exception:
        logger.warning("What a store holds could not be read", exc_info=True)
        return []


# What the running call has deleted so far, also in tasks that it started.
_deletions: ContextVar[list[Record] | None] = ContextVar("hins_mem0_deletions", default=None)


def deletions() -> AbstractContextManager[list[Record]]:
    """Collect the memories that `deleting` notes inside the block."""
    return set_to(_deletions, [])


def about_to_be_deleted(memory: Any, memory_id: Any, existing: Any = None) -> Record | None:
    """Return the stored memory before it is deleted, None if that is not recorded; `existing` is its row, if known."""
    if _deletions.get() is None:
        return None
    return stored_memory(memory, memory_id) if existing is None else _stored(existing)


@contextmanager
def deleting(memory: Any, stored: Record | None) -> Iterator[None]:
    """Around the deletion of one memory: note it when it is done.

    An error after the store has deleted it, e.g. of Mem0's history, does not bring it back.
    """
    deleted_memories = _deletions.get()
    if deleted_memories is None or stored is None:
        yield
        return
    try:
        yield
    except Exception:
        if _is_deleted(memory, stored.id):
            deleted_memories.append(stored)
        raise
    deleted_memories.append(stored)


def _is_deleted(memory: Any, memory_id: Any) -> bool:
    try:
        return memory.vector_store.get(vector_id=memory_id) is None
    except Exception:
        return False
