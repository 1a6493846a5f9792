"""What an attached Mem0 memory does differently: it records its calls and serves from the agent's current binding.

`_Common` holds the work; `_SyncMethods` and `_AsyncMethods` are thin wrappers over Mem0's two classes.
A memory that only captures keeps Mem0's own embedder and stores; the properties then pass through to them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import mem0

from hins_adapter_mem0.agent import Mem0Agent
from hins_adapter_mem0.recorder import (
    Stored,
    deleting,
    deletions,
    doomed,
    stored_memories,
)
from hins_memory.sdk.attachment import ATTACHMENT_SLOT, Attachment, OutcomeMethods, attachment_of
from hins_memory.sdk.captures import leave_capture

__all__ = ["Mem0Attachment", "attached_class"]

_MARK = "_hins_attached"
_attached_classes: dict[type, type] = {}


@dataclass(kw_only=True)
class Mem0Attachment(Attachment):
    """What hins-memory keeps in a memory object; `agent` is None while Mem0's own embedder and stores serve."""

    agent: Mem0Agent | None = None

    def install(self, memory: Any) -> None:
        """Put this into a memory."""
        memory.__dict__[ATTACHMENT_SLOT] = self
        if self.agent is not None:
            self.agent.join(memory)

    def close(self, memory: Any) -> None:
        """Write what waits to the log and release what is held; a second call does nothing."""
        leave_capture(self.settings, memory)
        if self.agent is not None:
            self.agent.leave(memory)


def attached_class(original: type) -> type:
    """Return the subclass of one of Mem0's memory classes with the methods below; one for each class.

    It has one base, and the methods are copied into it: Python lets an object change its class to such a subclass,
    but not to one with a second base.
    """
    if original not in _attached_classes:
        methods = _AsyncMethods if issubclass(original, mem0.AsyncMemory) else _SyncMethods
        namespace = {
            name: value
            for source in (OutcomeMethods, _Common, methods)
            for name, value in vars(source).items()
            if name not in ("__dict__", "__weakref__", "__module__", "__qualname__", "__doc__")
        }
        namespace |= {_MARK: True, "__doc__": original.__doc__, "__module__": __name__}
        _attached_classes[original] = type(f"Attached{original.__name__}", (original,), namespace)
    return _attached_classes[original]


def _mem0(memory: Any) -> Any:
    """Return what `super()` is for the methods of an attached class, which were defined elsewhere."""
    attached = next(cls for cls in type(memory).__mro__ if _MARK in vars(cls))
    return super(attached, memory)


class _Common(OutcomeMethods):
    """The properties that Mem0 reads its components from, and what the calls of both classes do around Mem0's."""

    @property
    def _hins_agent(self) -> Mem0Agent | None:
        attachment = attachment_of(self)
        return attachment.agent if attachment is not None else None

    @property
    def embedding_model(self) -> Any:
        """The embedder of the running operation."""
        agent = self._hins_agent
        return self.__dict__["embedding_model"] if agent is None else agent.binding.embedding

    @embedding_model.setter
    def embedding_model(self, value: Any) -> None:
        self.__dict__["embedding_model"] = value

    @property
    def vector_store(self) -> Any:
        """The store of memories of the running operation."""
        agent = self._hins_agent
        return self.__dict__["vector_store"] if agent is None else agent.binding.memories

    @vector_store.setter
    def vector_store(self, value: Any) -> None:
        self.__dict__["vector_store"] = value

    @property
    def entity_store(self) -> Any:
        """The store of entities of the running operation."""
        agent = self._hins_agent
        return _mem0(self).entity_store if agent is None else agent.binding.entities

    @property
    def _entity_store(self) -> Any:
        # Mem0 looks here to see whether there is an entity store yet.
        agent = self._hins_agent
        return self.__dict__.get("_entity_store") if agent is None else agent.binding.entities

    @_entity_store.setter
    def _entity_store(self, value: Any) -> None:
        self.__dict__["_entity_store"] = value

    def close(self) -> None:
        """Release what the memory holds, and write what waits to the interaction log."""
        _mem0(self).close()
        attachment = attachment_of(self)
        if attachment is not None:
            attachment.close(self)

    def _hins_pin(self) -> contextlib.AbstractContextManager[Any]:
        """Keep one embedder and its stores for one operation."""
        agent = self._hins_agent
        return contextlib.nullcontext() if agent is None else agent.pin()

    def _hins_searched(self, result: Any, arguments: tuple[Any, ...], options: Mapping[str, Any], capture: bool) -> Any:
        """Record a search and put the id of its record into what it returns."""
        retrieval_id = ""
        if capture and self._hins_recorder.on:
            query = arguments[0] if arguments else options.get("query")
            agent = self._hins_agent
            version = "" if agent is None else agent.binding.version
            retrieval_id = self._hins_recorder.searched(cast("str", query), options.get("filters"), result, version)
        if isinstance(result, dict):
            result["retrieval_id"] = retrieval_id
        return result

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

    @contextlib.contextmanager
    def _hins_deletions(self, capture: bool) -> Iterator[None]:
        """Record what is deleted inside, also when an error ends it."""
        if not (capture and self._hins_recorder.on):
            yield
            return
        with deletions() as gone:
            try:
                yield
            finally:
                self._hins_recorder.deleted(gone)

    def _hins_stored(self, capture: bool) -> list[Stored]:
        """Return everything that is stored, before a `reset` deletes it."""
        return stored_memories(self.vector_store) if capture and self._hins_recorder.on else []


def _memory_id(arguments: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
    return arguments[0] if arguments else options.get("memory_id")


class _SyncMethods(_Common):
    """The recording methods of an attached `mem0.Memory`; each takes ``capture=False`` to leave one call out."""

    def add(self, messages: Any, *, capture: bool = True, **options: Any) -> Any:
        """Add as Mem0 does, and record the turns and the memories that came out."""
        with self._hins_pin():
            result = _mem0(self).add(messages, **options)
            if capture and self._hins_recorder.on:
                self._hins_recorder.added(self, messages, options, result)
        return result

    def search(self, *arguments: Any, capture: bool = True, **options: Any) -> Any:
        """Search as Mem0 does; the result also carries ``retrieval_id`` ("" when nothing is recorded)."""
        with self._hins_pin():
            result = _mem0(self).search(*arguments, **options)
            return self._hins_searched(result, arguments, options, capture)

    def get(self, *arguments: Any, **options: Any) -> Any:
        """Return a memory as Mem0 does."""
        with self._hins_pin():
            return _mem0(self).get(*arguments, **options)

    def get_all(self, *arguments: Any, **options: Any) -> Any:
        """List memories as Mem0 does."""
        with self._hins_pin():
            return _mem0(self).get_all(*arguments, **options)

    def update(self, *arguments: Any, capture: bool = True, **options: Any) -> Any:
        """Update as Mem0 does, and record the memory as it is then."""
        with self._hins_pin():
            try:
                return _mem0(self).update(*arguments, **options)
            finally:
                # Also after an error: Mem0's history may fail when the store has the new text already.
                if capture and self._hins_recorder.on:
                    self._hins_recorder.updated(self, _memory_id(arguments, options))

    def delete(self, *arguments: Any, capture: bool = True, **options: Any) -> Any:
        """Delete as Mem0 does, and record it."""
        with self._hins_pin(), self._hins_deletions(capture):
            return _mem0(self).delete(*arguments, **options)

    def delete_all(self, *arguments: Any, capture: bool = True, **options: Any) -> Any:
        """Delete all memories of a scope as Mem0 does, and record each that is gone."""
        with self._hins_pin(), self._hins_deletions(capture):
            return _mem0(self).delete_all(*arguments, **options)

    def _delete_memory(self, memory_id: Any, existing_memory: Any = None, **options: Any) -> Any:
        # Every deletion of Mem0's goes through here.
        with deleting(self, doomed(self, memory_id, existing_memory)):
            return _mem0(self)._delete_memory(memory_id, existing_memory, **options)

    def reset(self, *, capture: bool = True) -> Any:
        """Delete everything as Mem0 does, and record it."""
        stored = self._hins_stored(capture)
        if self._hins_agent is None:
            _mem0(self).reset()
        else:
            self._hins_reset("sync")
        if stored:
            self._hins_recorder.deleted(stored)


class _AsyncMethods(_Common):
    """The same for an attached `mem0.AsyncMemory`."""

    @contextlib.asynccontextmanager
    async def _hins_following(self) -> AsyncIterator[None]:
        """Keep one embedder and its stores for one operation; what takes time happens outside of the event loop."""
        agent = self._hins_agent
        if agent is not None and agent.refresh_due:
            await asyncio.to_thread(agent.refresh_if_due)
        with self._hins_pin():
            yield

    async def add(self, messages: Any, *, capture: bool = True, **options: Any) -> Any:
        """Add as Mem0 does, and record the turns and the memories that came out."""
        async with self._hins_following():
            result = await _mem0(self).add(messages, **options)
            if capture and self._hins_recorder.on:
                await asyncio.to_thread(self._hins_recorder.added, self, messages, options, result)
        return result

    async def search(self, *arguments: Any, capture: bool = True, **options: Any) -> Any:
        """Search as Mem0 does; the result also carries ``retrieval_id`` ("" when nothing is recorded)."""
        async with self._hins_following():
            result = await _mem0(self).search(*arguments, **options)
            return self._hins_searched(result, arguments, options, capture)

    async def get(self, *arguments: Any, **options: Any) -> Any:
        """Return a memory as Mem0 does."""
        async with self._hins_following():
            return await _mem0(self).get(*arguments, **options)

    async def get_all(self, *arguments: Any, **options: Any) -> Any:
        """List memories as Mem0 does."""
        async with self._hins_following():
            return await _mem0(self).get_all(*arguments, **options)

    async def update(self, *arguments: Any, capture: bool = True, **options: Any) -> Any:
        """Update as Mem0 does, and record the memory as it is then."""
        async with self._hins_following():
            try:
                return await _mem0(self).update(*arguments, **options)
            finally:
                if capture and self._hins_recorder.on:
                    await asyncio.to_thread(self._hins_recorder.updated, self, _memory_id(arguments, options))

    async def delete(self, *arguments: Any, capture: bool = True, **options: Any) -> Any:
        """Delete as Mem0 does, and record it."""
        async with self._hins_following():
            with self._hins_deletions(capture):
                return await _mem0(self).delete(*arguments, **options)

    async def delete_all(self, *arguments: Any, capture: bool = True, **options: Any) -> Any:
        """Delete all memories of a scope as Mem0 does, and record each that is gone."""
        async with self._hins_following():
            with self._hins_deletions(capture):
                return await _mem0(self).delete_all(*arguments, **options)

    async def _delete_memory(self, memory_id: Any, existing_memory: Any = None, **options: Any) -> Any:
        with deleting(self, await asyncio.to_thread(doomed, self, memory_id, existing_memory)):
            return await _mem0(self)._delete_memory(memory_id, existing_memory, **options)

    async def reset(self, *, capture: bool = True) -> Any:
        """Delete everything as Mem0 does, and record it."""
        stored = await asyncio.to_thread(self._hins_stored, capture)
        if self._hins_agent is None:
            await _mem0(self).reset()
        else:
            await asyncio.to_thread(self._hins_reset, "async")
        if stored:
            self._hins_recorder.deleted(stored)
