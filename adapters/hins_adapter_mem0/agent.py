"""A Mem0 store whose encoder and collections can be swapped while it serves: the `Agent` protocol for Mem0."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from hins_adapter_mem0.clients import release_client
from hins_adapter_mem0.embedding import HinsEmbedding
from hins_adapter_mem0.encoders import OwnEncoder
from hins_adapter_mem0.index import StoreIndex, open_index
from hins_adapter_mem0.stores import GuardedStore, Replica, StoreOpener, entity_collection
from hins_memory.agent import Index
from hins_memory.encoder_source import EncoderSource, TextEncoder
from hins_memory.errors import AgentError

__all__ = ["Binding", "Mem0Agent", "shared_agent"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Binding:
    """An embedder with the stores that hold its vectors: what one operation uses from its start to its end.

    `version` is "" for an embedder of Mem0's own.
    """

    embedding: Any
    encoder: TextEncoder
    memories: GuardedStore
    entities: GuardedStore
    version: str
    suffix: str

    def indexes(self) -> list[StoreIndex]:
        """Return the memories and the entities as indexes."""
        return [open_index(self.memories, "memories"), open_index(self.entities, "entities")]


# What each agent's running operation is pinned to. A context variable, so that it follows the operation into
# the threads and tasks that Mem0 starts for it.
_pinned: ContextVar[Mapping[int, Binding]] = ContextVar("hins_mem0_pinned")


class Mem0Agent:
    """One Mem0 store, shared by every Memory of this process that works on it.

    A flip is one assignment: operations that run already stay with the binding that they are pinned to, those that
    start later get the new one, and neither waits.
    """

    name = "mem0"
    #: Mem0's thresholds: results below 0.1 are cut, entities boost from 0.5 and are merged from 0.95.
    cutoffs = (0.1, 0.5, 0.95)

    def __init__(self, key: str, opener: StoreOpener, encoders: EncoderSource) -> None:
        self._key = key
        self.opener = opener
        self._collection = str(opener.config.collection_name)
        self.encoders = encoders
        self._lock = threading.RLock()
        self._current: Binding | None = None
        self._shadow: Binding | None = None
        # The binding with Mem0's own embedder, which only a live Memory can give.
        self._own: Binding | None = None
        self._users: weakref.WeakSet[Any] = weakref.WeakSet()
        self._closer: weakref.finalize[[str], Mem0Agent] | None = None

    @property
    def key(self) -> str:
        """What identifies the store in every process, without secrets, e.g. ``mem0:qdrant:/data/qdrant:mem0``."""
        return self._key

    @property
    def encoder_version(self) -> str:
        """The encoder version that serves now; "" when Mem0 embeds with an encoder of its own."""
        return self.binding.version

    @property
    def current(self) -> Binding:
        """The binding that operations starting now get."""
        if self._current is None:
            raise AgentError(f"{self.key} was not opened.")
        return self._current

    @property
    def binding(self) -> Binding:
        """The binding of the running operation, or the current one outside of any."""
        pinned = _pinned.get({}).get(id(self))
        return pinned if pinned is not None else self.current

    def owns_client(self, path: str) -> None:
        """Give the embedded Qdrant folder `path` back when the last user leaves, or when nothing holds this agent."""
        self._closer = weakref.finalize(self, release_client, path)

    def join(self, memory: Any) -> None:
        """Count a memory as a user of this agent."""
        self._users.add(memory)

    def leave(self, memory: Any) -> None:
        """Count it no longer; after the last one the store is closed, and another process can open it."""
        with _agents_lock:
            self._users.discard(memory)
            if self._users:
                return
            for name, agent in list(_agents.items()):
                if agent is self:
                    del _agents[name]
            if self._closer is not None:
                self._closer()

    @contextmanager
    def pin(self) -> Iterator[Binding]:
        """Keep one binding for everything that happens inside, whatever flips meanwhile."""
        binding = self.binding
        token = _pinned.set({**_pinned.get({}), id(self): binding})
        try:
            yield binding
        finally:
            _pinned.reset(token)

    def serve(self, version: str, suffix: str) -> None:
        """Open the collections of a version and serve from them; for the first opening."""
        self._current = self.bind(version, suffix)

    def serve_own(self, embedding: Any, memories: Any, entities: Any) -> None:
        """Serve from a Memory's own embedder and stores, so that they can be swapped."""
        self._own = self._current = Binding(
            embedding=embedding,
            encoder=OwnEncoder(embedding),
            memories=GuardedStore(memories, self.opener.lock(memories.collection_name)),
            entities=GuardedStore(entities, self.opener.lock(entities.collection_name)),
            version="",
            suffix="",
        )

    def bind(self, version: str, suffix: str) -> Binding:
        """Open the collections of a version, creating what is missing.

        Raises:
            AgentError: the version's encoder cannot be loaded.
            EncoderError: it is damaged.
        """
        encoder = self.encoders.by_version(version)
        collection = f"{self._collection}{suffix}"
        return Binding(
            embedding=HinsEmbedding(encoder=encoder),
            encoder=encoder,
            memories=self.opener.open(collection, encoder.dim),
            entities=self.opener.open(entity_collection(self.opener.provider, collection), encoder.dim),
            version=version,
            suffix=suffix,
        )

    def live(self) -> list[Index]:
        """Return the indexes that serve now."""
        return list(self.current.indexes())

    def open(self, version: str, suffix: str) -> list[Index]:
        """Open (creating what is missing) the indexes of `version` under the collection suffix `suffix`."""
        return list(self._opened(version, suffix).indexes())

    def begin(self, version: str, suffix: str) -> None:
        """From now on, send every write to the live indexes and to the shadow indexes of `version` too.

        Raises:
            AgentError: that suffix serves already, or the encoder of `version` cannot be loaded.
        """
        with self._lock:
            if suffix == self.current.suffix and version == self.current.version:
                raise AgentError(f"{self.key} serves {version!r} already.")
            if self._is(self._shadow, version, suffix):
                return
            self.abandon()
            shadow = self._opened(version, suffix)
            for source, target in self._pairs(self.current, shadow):
                source.store.replica = Replica(source, target, shadow.encoder, self._lock)
            self._shadow = shadow

    def replicate_lock(self) -> threading.RLock:
        """Return the context manager that excludes concurrent writes to the shadow indexes."""
        return self._lock

    def drain(self) -> None:
        """Bring over every write that has not reached the shadow indexes yet.

        Raises:
            Exception: whatever the store raised; the writes are kept for another try.
        """
        with self._lock:
            for store in (self.current.memories, self.current.entities):
                if store.replica is not None:
                    store.replica.drain()

    def flip(self, version: str, suffix: str) -> None:
        """Serve from the indexes and encoder of `version`.

        Operations that already run end on the old ones; what they write reaches the new ones too.

        Raises:
            AgentError: the encoder of `version` cannot be loaded.
            Exception: whatever the store raised, when writes could not be brought over; nothing has changed then.
        """
        with self._lock:
            if self._is(self._current, version, suffix):
                return
            self.begin(version, suffix)
            self.drain()
            for store in (self.current.memories, self.current.entities):
                if store.replica is not None:
                    store.replica.serving = True
            self._current, self._shadow = self._shadow, None

    def abandon(self) -> None:
        """Stop writing to the shadow indexes; they stay as they are."""
        with self._lock:
            self.current.memories.replica = self.current.entities.replica = None
            self._shadow = None

    def reset(self) -> None:
        """Delete everything that the store holds, in the serving collections, the shadow's and the previous ones."""
        with self._lock:
            for store in (self.current.memories, self.current.entities):
                store.reset()
            previous = self.encoders.registry.previous_index(self.key)
            if previous is not None:
                for index in self._opened(previous.version, previous.suffix).indexes():
                    index.clear()

    def _opened(self, version: str, suffix: str) -> Binding:
        for binding in (self._current, self._shadow, self._own):
            if binding is not None and self._is(binding, version, suffix):
                return binding
        return self.bind(version, suffix)

    @staticmethod
    def _is(binding: Binding | None, version: str, suffix: str) -> bool:
        return binding is not None and (binding.version, binding.suffix) == (version, suffix)

    @staticmethod
    def _pairs(source: Binding, target: Binding) -> Iterator[tuple[StoreIndex, StoreIndex]]:
        return zip(source.indexes(), target.indexes(), strict=True)


_agents: weakref.WeakValueDictionary[tuple[str, str, int], Mem0Agent] = weakref.WeakValueDictionary()
_agents_lock = threading.RLock()


def shared_agent(database_url: str, key: str, client: Any, make: Callable[[], Mem0Agent]) -> Mem0Agent:
    """Return this process's agent for a store, made by `make` if there is none: so that a flip reaches all users.

    Args:
        database_url: the project's database.
        key: the agent's key.
        client: the client that the user gave for the store, whose agents stay apart from those of others; or None.
        make: opens the agent.
    """
    # The agent holds its client, so the client's address stays its own while the agent is here.
    name = (database_url, key, 0 if client is None else id(client))
    with _agents_lock:
        agent = _agents.get(name)
        if agent is None:
            agent = _agents[name] = make()
        return agent
