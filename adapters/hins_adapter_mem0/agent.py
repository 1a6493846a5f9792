"""A Mem0 store whose encoder and collections can be swapped while it serves: the `Agent` protocol for Mem0."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from hins_adapter_mem0.clients import release_client
from hins_adapter_mem0.embedding import HinsEmbedding
from hins_adapter_mem0.encoders import OwnEncoder
from hins_adapter_mem0.faiss_files import prepare_faiss, release_faiss
from hins_adapter_mem0.index import StoreIndex, open_index
from hins_adapter_mem0.stores import GuardedStore, Replica, StoreOpener, entity_collection
from hins_memory.errors import AgentError, LogError
from hins_memory.plugins.protocols import Index
from hins_memory.registry.loader import EncoderSource, TextEncoder

if TYPE_CHECKING:
    from hins_memory.registry.registry import IndexRecord, Registry

__all__ = ["Binding", "Mem0Agent", "shared_agent"]

logger = logging.getLogger(__name__)

# How old what is known of the registry may be when an operation begins.
_LOOK_SECONDS = 0.4
# How often a flip lets the writes that are on their way end first.
_FLIP_TRIES = 50


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
    #: what is written after a swap is noted in the registry, so that a rollback is as quick as the flip
    notes_changes = True

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
        # Whether a swap of this process is building the shadow; otherwise one of another process is.
        self._building = False
        self._looked = float("-inf")
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
            if self._own is not None and self.opener.provider == "faiss":
                release_faiss(self._own.memories.raw)
                release_faiss(self._own.entities.raw)
            if self._closer is not None:
                self._closer()

    @property
    def due(self) -> bool:
        """Whether the registry is to be looked at again before the next operation."""
        return self.opener.shared and time.monotonic() - self._looked >= _LOOK_SECONDS

    @property
    def follow_seconds(self) -> float:
        """How long it may take until no process works any more with what served before a flip; 0 if it is only one."""
        return 2 * _LOOK_SECONDS if self.opener.shared else 0.0

    def follow(self) -> None:
        """`refresh` if it is due; while the log cannot be read, nobody can flip either, and what serves goes on."""
        if self.due:
            try:
                self.refresh()
            except LogError as error:
                logger.warning("Whether %s was swapped is not known now: %s", self.key, error)

    def refresh(self) -> None:
        """Follow what other processes recorded about the store: serve what is live, write to what is being built too.

        Raises:
            AgentError: what serves by now cannot be opened here.
            LogError: the registry cannot be read.
        """
        if not self.opener.shared:
            return
        self._looked = time.monotonic()
        if self._in_step():
            return
        with self._lock:
            # Read again under the lock: a flip of this process may have ended meanwhile.
            live, shadow = self._recorded()
            if live is not None and not self._is(self._current, live.version, live.suffix):
                logger.info("%s is served by %s by now", self.key, live.version)
                self.flip(live.version, live.suffix)
            if shadow is None:
                if self._shadow is not None and not self._building:
                    self.abandon()
            elif not self._is(self._shadow, shadow.version, shadow.suffix) and not self._building:
                try:
                    self._mirror(shadow.version, shadow.suffix)
                except Exception:
                    logger.exception("%s cannot be written to from here, so its swap is given up", shadow.version)
                    self._veto()

    def _in_step(self) -> bool:
        live, shadow = self._recorded()
        if live is not None and not self._is(self._current, live.version, live.suffix):
            return False
        if shadow is None or self._building:
            return self._shadow is None or self._building
        return self._is(self._shadow, shadow.version, shadow.suffix)

    def _recorded(self) -> tuple[IndexRecord | None, IndexRecord | None]:
        """Return the generations that serve and are being built, read at once."""
        states = {record.state: record for record in self.encoders.registry.generations(self.key)}
        return states.get("live"), states.get("shadow")

    def _veto(self) -> None:
        """Give up a swap of another process, which would lose what this one writes; it can be run again."""
        if self.opener.shared and not self._building:
            self.encoders.registry.abandon_shadow(self.key)

    @contextmanager
    def pin(self) -> Iterator[Binding]:
        """Keep one binding for everything that happens inside, whatever flips meanwhile."""
        if id(self) not in _pinned.get({}):
            self.follow()
        binding = self.binding
        token = _pinned.set({**_pinned.get({}), id(self): binding})
        try:
            yield binding
        finally:
            _pinned.reset(token)

    def serve(self, version: str, suffix: str) -> None:
        """Open the collections of a version and serve from them; for the first opening."""
        self._current = self._noting(self.bind(version, suffix))

    def serve_own(self, embedding: Any, memories: Any, entities: Any) -> None:
        """Serve from a Memory's own embedder and stores, so that they can be swapped.

        Raises:
            AgentError: the files of a store are damaged.
        """
        if self.opener.provider == "faiss":
            prepare_faiss(memories)
            prepare_faiss(entities)
        self._own = self._current = Binding(
            embedding=embedding,
            encoder=OwnEncoder(embedding),
            memories=self._watched(GuardedStore(memories, self.opener.lock(memories.collection_name))),
            entities=self._watched(GuardedStore(entities, self.opener.lock(entities.collection_name))),
            version="",
            suffix="",
        )

    def _noting(self, binding: Binding) -> Binding:
        """Make the stores of a binding note what is written to them, until there is no index to roll back to."""
        for index in binding.indexes():
            index.store.note = partial(_note, self.encoders.registry, self.key, index)
        return binding

    def _watched(self, store: GuardedStore) -> GuardedStore:
        """Make a store that other processes share look, after each write, whether it has to be copied by now.

        A swap that is recorded later than that finds the write in the store.
        """
        if self.opener.shared:
            # Weakly, so that the agent does not live on in its own stores.
            itself = weakref.ref(self)

            def look() -> None:
                if (agent := itself()) is not None:
                    agent.refresh()

            store.wrote = look
        return store

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
            memories=self._watched(self.opener.open(collection, encoder.dim)),
            entities=self._watched(self.opener.open(entity_collection(self.opener.provider, collection), encoder.dim)),
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
            self._mirror(version, suffix)
            self._building = True

    def _mirror(self, version: str, suffix: str) -> None:
        if self._is(self._shadow, version, suffix):
            return
        self.abandon()
        shadow = self._opened(version, suffix)
        for source, target in self._pairs(self.current, shadow):
            source.store.replica = Replica(source, target, shadow.encoder, self._lock, self._veto)
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
            for store in self._stores():
                if store.replica is not None:
                    store.replica.drain()

    def flip(self, version: str, suffix: str) -> float:
        """Serve from the indexes and encoder of `version`.

        Operations that already run end on the old ones; what they write reaches the new ones too.

        Returns:
            For how many seconds writes were kept out.

        Raises:
            AgentError: the encoder of `version` cannot be loaded.
            Exception: whatever the store raised, when writes could not be brought over; nothing has changed then.
        """
        # Loaded now, so that nobody waits for it.
        encoder = self.encoders.by_version(version)
        with self._lock:
            started = time.perf_counter()
            if self._is(self._current, version, suffix):
                return 0.0
            if suffix == self.current.suffix:
                # Both versions make the same vectors of documents: the stores stay, and queries change.
                queries = HinsEmbedding(encoder=encoder)
                self._current = replace(self.current, embedding=queries, encoder=encoder, version=version)
                return time.perf_counter() - started
            self._mirror(version, suffix)
        for tries_left in reversed(range(_FLIP_TRIES)):
            self._catch_up()
            with self._lock:
                started = time.perf_counter()
                # A write that is on its way now would be copied while the others wait.
                if tries_left and not all(store.in_step for store in self._stores()):
                    continue
                if self._shadow is None or not self._is(self._shadow, version, suffix):
                    raise AgentError(f"The swap of {self.key} to {version!r} was given up meanwhile.")
                self._catch_up()
                for store in self._stores():
                    if store.replica is not None:
                        store.replica.serving = True
                self._current, self._shadow, self._building = self._noting(self._shadow), None, False
                return time.perf_counter() - started
        raise AssertionError("the last try always ends")

    def _stores(self) -> tuple[GuardedStore, GuardedStore]:
        return self.current.memories, self.current.entities

    def _catch_up(self) -> None:
        for store in self._stores():
            store.settle()
        self.drain()

    def abandon(self) -> None:
        """Stop writing to the shadow indexes; they stay as they are."""
        with self._lock:
            self.current.memories.replica = self.current.entities.replica = None
            self._shadow, self._building = None, False

    def reset(self) -> None:
        """Delete everything that the store holds, in the serving collections, the shadow's and the previous ones."""
        with self._lock:
            for store in self._stores():
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


def _note(registry: Registry, key: str, index: StoreIndex, ids: Sequence[Any]) -> bool:
    return registry.note_changes(key, index.kind, [index.key(id_) for id_ in ids])


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
