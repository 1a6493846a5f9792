"""What an attached Mem0 memory does differently: it records its calls and serves from the agent's current binding.

`_Common` does the work; the sync and the async class are thin wrappers around it.
A memory that only captures keeps Mem0's own embedder and stores; the properties then return these.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import mem0

from hins_adapter_mem0.agent import Mem0Agent
from hins_adapter_mem0.events import search_scope
from hins_adapter_mem0.recorder import (
    about_to_be_deleted,
    deleting,
    deletions,
    stored_memories,
)
from hins_memory.log.capture import never_raises
from hins_memory.plugins.protocols import Record
from hins_memory.sdk.attachment import (
    Attachment,
    BindingComponent,
    OutcomeMethods,
    attached_class,
    attachment_of,
    super_of,
)
from hins_memory.types import Scope

__all__ = ["Mem0Attachment", "attached_memory"]


@dataclass(kw_only=True)
class Mem0Attachment(Attachment):
    """What hins-memory keeps in a memory object; `agent` is None while Mem0's own embedder and stores serve."""

    agent: Mem0Agent | None = None

    def install(self, memory: Any) -> None:
        """Store this attachment in a memory."""
        super().install(memory)
        if self.agent is not None:
            self.agent.join(memory)

    def close(self, memory: Any) -> None:
        """Write waiting events to the log and release the store; a second call does nothing."""
        super().close(memory)
        if self.agent is not None:
            self.agent.leave(memory)


def attached_memory(original: type) -> type:
    """Return the subclass of one of Mem0's memory classes with the methods below."""
    return attached_class(original, _AsyncMethods if issubclass(original, mem0.AsyncMemory) else _SyncMethods)


class _Common(OutcomeMethods):
    """Mem0's components that come from the binding, and what both classes do around Mem0's calls."""

    @property
    def _hins_agent(self) -> Mem0Agent | None:
        attachment = attachment_of(self)
        return attachment.agent if attachment is not None else None

    embedding_model = BindingComponent("embedding")
    vector_store = BindingComponent("searched")
    # Mem0 reads this to find out whether there is an entity store yet.
    _entity_store = BindingComponent("entities")

    @property
    def entity_store(self) -> Any:
        """The store of entities of the running operation."""
        agent = self._hins_agent
        return super_of(self).entity_store if agent is None else agent.binding.entities

    def close(self) -> None:
        """Close the memory, and write waiting events to the interaction log."""
        super_of(self).close()
        attachment = attachment_of(self)
        if attachment is not None:
            attachment.close(self)

    def _hins_pin(self, scope: Scope | None = None) -> contextlib.AbstractContextManager[Any]:
        """Keep one embedder and its stores for one operation; a search has the scope whose memories it asks for."""
        agent = self._hins_agent
        return contextlib.nullcontext() if agent is None else agent.pin(scope)

    @contextlib.contextmanager
    def _hins_recording(
        self, call: str, arguments: tuple[Any, ...], options: Mapping[str, Any], capture: bool
    ) -> Iterator[Callable[[Any], Any] | None]:
        """Record a call of Mem0; yields a function from its result to what is returned, None for no change."""
        recorder = self._hins_recorder
        subject = arguments[0] if arguments else options.get(_SUBJECTS.get(call, ""))
        if not (capture and recorder.on):
            yield (lambda result: _with_retrieval_id(result, "")) if call == "search" else None
        elif call == "add":
            rest = {name: value for name, value in options.items() if name != "messages"}
            yield lambda result: recorder.added(self, subject, rest, result) or result
        elif call == "search":
            yield lambda result: self._hins_searched(subject, options.get("filters"), result)
        elif call == "update":
            try:
                yield lambda result: recorder.updated(self, subject) or result
            except Exception:
                # Also after an error: Mem0's history may fail after the store has the new text.
                recorder.updated(self, subject)
                raise
        elif call in ("delete", "delete_all"):
            with deletions() as deleted:
                try:
                    yield None
                finally:
                    recorder.deleted(deleted)
        else:
            yield None

    def _hins_searched(self, query: Any, filters: Mapping[str, Any] | None, result: Any) -> Any:
        agent = self._hins_agent
        version = "" if agent is None else agent.binding.version
        return _with_retrieval_id(result, self._hins_recorder.searched(query, filters, result, version))

    def _hins_reset(self, kind: str) -> None:
        """Do what Mem0's `reset` does, for the binding's stores instead of those of the configuration."""
        from mem0.memory.storage import SQLiteManager
        from mem0.memory.telemetry import capture_event

        memory = cast("Any", self)
        assert self._hins_agent is not None
        self._hins_agent.reset()
        memory.db.reset()
        memory.db.close()
        memory.db = SQLiteManager(memory.config.history_db_path)
        capture_event("mem0.reset", self, {"sync_type": kind})

    def _hins_stored(self, capture: bool) -> list[Record]:
        """Return everything that is stored, before a `reset` deletes it."""
        return stored_memories(self.vector_store) if capture and self._hins_recorder.on else []


def _with_retrieval_id(result: Any, retrieval_id: str) -> Any:
    if isinstance(result, dict):
        result["retrieval_id"] = retrieval_id
    return result


# The calls that keep one binding from their start to their end; each takes `capture=False` to leave it out of the log.
_CALLS = ("add", "search", "get", "get_all", "update", "delete", "delete_all")
# What the first argument of a call is called.
_SUBJECTS = {"add": "messages", "search": "query", "update": "memory_id"}


@never_raises(cast("Scope | None", None))
def _searched_scope(call: str, options: Mapping[str, Any]) -> Scope | None:
    """Return whose memories a call of Mem0 searches; None for other calls, and for a search across users."""
    return search_scope(options.get("filters") or {}) if call == "search" else None


def _sync_call(name: str) -> Callable[..., Any]:
    """Return Mem0's method with one binding and a record of it; a search's result also carries ``retrieval_id``."""

    @functools.wraps(getattr(mem0.Memory, name))
    def call(self: _Common, *arguments: Any, capture: bool = True, **options: Any) -> Any:
        recording = self._hins_recording(name, arguments, options, capture)
        with self._hins_pin(_searched_scope(name, options)), recording as convert:
            result = getattr(super_of(self), name)(*arguments, **options)
            return result if convert is None else convert(result)

    return call


def _async_call(name: str) -> Callable[..., Any]:
    """Return the same for `mem0.AsyncMemory`; what takes time happens outside of the event loop."""

    @functools.wraps(getattr(mem0.AsyncMemory, name))
    async def call(self: _Common, *arguments: Any, capture: bool = True, **options: Any) -> Any:
        recording = self._hins_recording(name, arguments, options, capture)
        agent = self._hins_agent
        if agent is not None and agent.refresh_due:
            await asyncio.to_thread(agent.refresh_if_due)
        scope = _searched_scope(name, options)
        if agent is not None and scope is not None:
            # It may read a file: not in the event loop.
            await asyncio.to_thread(agent.load_scoped, scope)
        with self._hins_pin(scope), recording as convert:
            result = await getattr(super_of(self), name)(*arguments, **options)
            return result if convert is None else await asyncio.to_thread(convert, result)

    return call


class _SyncMethods(_Common):
    """What an attached `mem0.Memory` does beside the calls of `_sync_call`."""

    def _delete_memory(self, memory_id: Any, existing_memory: Any = None, **options: Any) -> Any:
        # Every deletion of Mem0's goes through here.
        with deleting(self, about_to_be_deleted(self, memory_id, existing_memory)):
            return super_of(self)._delete_memory(memory_id, existing_memory, **options)

    def reset(self, *, capture: bool = True) -> Any:
        """Delete everything as Mem0 does, and record it."""
        stored = self._hins_stored(capture)
        if self._hins_agent is None:
            super_of(self).reset()
        else:
            self._hins_reset("sync")
        if stored:
            self._hins_recorder.deleted(stored)


class _AsyncMethods(_Common):
    """The same for an attached `mem0.AsyncMemory`."""

    async def _delete_memory(self, memory_id: Any, existing_memory: Any = None, **options: Any) -> Any:
        with deleting(self, await asyncio.to_thread(about_to_be_deleted, self, memory_id, existing_memory)):
            return await super_of(self)._delete_memory(memory_id, existing_memory, **options)

    async def reset(self, *, capture: bool = True) -> Any:
        """Delete everything as Mem0 does, and record it."""
        stored = await asyncio.to_thread(self._hins_stored, capture)
        if self._hins_agent is None:
            await super_of(self).reset()
        else:
            await asyncio.to_thread(self._hins_reset, "async")
        if stored:
            self._hins_recorder.deleted(stored)


for _name in _CALLS:
    setattr(_SyncMethods, _name, _sync_call(_name))
    setattr(_AsyncMethods, _name, _async_call(_name))
