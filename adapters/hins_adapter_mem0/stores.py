"""Mem0's vector stores as this adapter uses them: opened by name, safe between threads, writes sent to a shadow too."""

from __future__ import annotations

import logging
import threading
import time
import uuid
import warnings
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from mem0.utils.factory import VectorStoreFactory

from hins_memory.common.secrets import masked
from hins_memory.errors import AgentError, LogError
from hins_memory.plugins.protocols import same_record

if TYPE_CHECKING:
    from hins_adapter_mem0.index import StoreIndex
    from hins_memory.plugins.protocols import Record
    from hins_memory.registry.loader import TextEncoder

__all__ = ["GuardedStore", "Replica", "StoreOpener", "entity_collection", "patiently", "provider_of", "store_client"]

logger = logging.getLogger(__name__)

# How often a call of a store is tried before it counts as failed, and how often it is done again because another
# process changed the source meanwhile.
_TRIES = 3
_TRY_SECONDS = 0.05
_ROUNDS = 20

_Result = TypeVar("_Result")


def patiently(call: Callable[[], _Result]) -> _Result:
    """Do something with a store that may be repeated, and repeat it when the store fails now and then.

    Raises:
        Exception: what the store raised at the last try.
    """
    for _ in range(_TRIES - 1):
        try:
            return call()
        except Exception as error:
            logger.info("A store failed and is tried again: %s", masked(str(error)))
            time.sleep(_TRY_SECONDS)
    return call()


def entity_collection(provider: str, collection: str) -> str:
    """Return the name that Mem0 gives to the entity collection of a memory collection."""
    return f"{collection}{'-' if provider == 's3_vectors' else '_'}entities"


def provider_of(store: Any) -> str:
    """Return Mem0's module name of a store, e.g. ``qdrant``; the same as its provider name but for a few."""
    return type(store).__module__.rpartition(".")[2]


def store_client(store: Any) -> Any:
    """Return the Qdrant client behind a store, or None for the stores of other providers."""
    return store.client if type(store).__module__ == "mem0.vector_stores.qdrant" else None


def _is_embedded(client: Any) -> bool:
    return type(getattr(client, "_client", None)).__name__ == "QdrantLocal"


class StoreOpener:
    """Opens collections of one Mem0 vector store, each under its own lock where the store needs one.

    Args:
        provider: Mem0's name of the store, e.g. ``qdrant``.
        config: the store's Mem0 configuration object; it is copied, never changed.
        client: a Qdrant client to share; an embedded Qdrant can be open only once.
    """

    def __init__(self, provider: str, config: Any, client: Any = None) -> None:
        if not hasattr(config, "collection_name"):
            raise AgentError(
                f"Mem0's {provider!r} store has no collection_name, so a second index beside it cannot be opened.",
                "Use a store with named collections, e.g. qdrant, pgvector or chroma; capturing alone works with any.",
            )
        self.provider = provider
        self.config = config
        self.client = client
        self._locks: dict[str, threading.RLock] = {}
        # Stores that keep their rows in memory, as Mem0's faiss does, must not be opened twice.
        self._stores: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()
        self._locks_lock = threading.Lock()

    @property
    def shared(self) -> bool:
        """Whether several processes can have the store open, as with every store on a server."""
        if self.provider == "chroma":
            named = getattr(self.config, "host", None) or getattr(self.config, "api_key", None)
            server = getattr(getattr(self.config, "client", None), "_server", None)
            return bool(named) or "FastAPI" in type(server).__name__
        return self.provider != "faiss" and not _is_embedded(self.client)

    def lock(self, collection: str) -> threading.RLock | None:
        """Return the lock of a collection, or None where the store is safe between threads by itself.

        Embedded Qdrant is not (a search during an insert fails with an IndexError now and then), nor is Mem0's faiss.
        """
        if self.provider != "faiss" and not _is_embedded(self.client):
            return None
        with self._locks_lock:
            return self._locks.setdefault(collection, threading.RLock())

    def open(self, collection: str, dim: int) -> GuardedStore:
        """Open a collection for vectors of `dim` numbers, creating it if it is missing."""
        changes: dict[str, Any] = {"collection_name": collection}
        changes[dimension_field(self.config)] = dim
        if self.client is not None:
            changes["client"] = self.client
        with self._locks_lock, warnings.catch_warnings():
            # Mem0 asks an embedded Qdrant for payload indexes when it is given a client; they have no effect there.
            warnings.filterwarnings("ignore", message="Payload indexes have no effect")
            raw = self._stores.get(collection)
            if raw is None:
                raw = self._stores[collection] = self._create(collection, changes)
        if _is_embedded(self.client):
            raw.is_local = True
        return GuardedStore(raw, self.lock(collection), dropped=self._forget)

    def _create(self, collection: str, changes: dict[str, Any]) -> Any:
        config = self.config.model_copy(update=changes)
        if self.provider == "faiss":
            from hins_adapter_mem0.faiss_files import finish_faiss, prepare_faiss, start_faiss

            finish_faiss(str(config.path), collection)
            start_faiss(config, collection)
            raw = VectorStoreFactory.create(self.provider, config)
            prepare_faiss(raw)
            return raw
        # Two processes may make the same collection at once: one of them is told that it exists by now.
        return patiently(lambda: VectorStoreFactory.create(self.provider, config))

    def _forget(self, collection: str) -> None:
        """Open a dropped collection anew the next time."""
        with self._locks_lock:
            self._stores.pop(collection, None)


def dimension_field(config: Any) -> str:
    """Return the name of the setting that holds the dimension of the vectors."""
    fields = type(config).model_fields
    return next((name for name in ("embedding_model_dims", "embedding_dimension") if name in fields), "dims")


class Replica:
    """Keeps a shadow index in step with the writes to its source, by copying the state of the rows written.

    What the source holds is copied, under one lock, so that the order of concurrent writes of this process cannot
    matter. Nor can that of other processes: after each copy the source is read again, and copied again if it has
    changed, so that whoever writes last has seen what the source holds.

    Args:
        source: the index that serves.
        target: the shadow.
        encoder: the shadow's encoder.
        lock: excludes the other writers of the shadow in this process.
        failed: called when writes could not be copied to a shadow, and are kept.
    """

    def __init__(
        self,
        source: StoreIndex,
        target: StoreIndex,
        encoder: TextEncoder,
        lock: threading.RLock,
        failed: Callable[[], None] = lambda: None,
    ) -> None:
        self.source = source
        self.target = target
        self.encoder = encoder
        #: whether the target serves by now: then a copy that fails is the caller's failure
        self.serving = False
        self._lock = lock
        self._failed = failed
        self._pending: dict[str, None] = {}

    @property
    def in_step(self) -> bool:
        """Whether no write is known that has not reached the shadow."""
        return not self._pending

    def push(self, ids: Iterable[Any]) -> None:
        """Bring the rows of these ids to the shadow's state of the source; while it is a shadow, never raise."""
        keys = [self.source.key(id_) for id_ in ids]
        with self._lock:
            self._pending.update(dict.fromkeys(keys))
        for attempt in range(_TRIES):
            try:
                # Encoding here fills the encoder's cache, so that the lock below is held for the writing only.
                self.encoder.encode([record.text for record in self.source.get(keys)], role="document")
                with self._lock:
                    self.drain()
                break
            except Exception:
                if attempt + 1 < _TRIES:
                    time.sleep(_TRY_SECONDS)
                elif self.serving:
                    raise
                else:
                    name = self.target.name
                    logger.exception("%d writes did not reach the shadow %s yet; they are kept", len(keys), name)
                    self._failed()
                    return
        # An operation that began two swaps ago: what serves now follows what it wrote to.
        follower = self.target.store.replica
        if follower is not None:
            follower.push(keys)

    def drain(self) -> None:
        """Copy the rows that did not reach the shadow; the caller holds the lock."""
        keys = list(self._pending)
        for _ in range(_ROUNDS):
            if not keys:
                self._pending.clear()
                return
            copied = self._copy(keys)
            now = {record.id: record for record in self.source.get(keys)}
            keys = [key for key in keys if not same_record(copied.get(key), now.get(key))]
        raise AgentError(f"{len(keys)} records of {self.source.name} change all the time, e.g. {keys[0]!r}.")

    def _copy(self, keys: Sequence[str]) -> dict[str, Record]:
        records = {record.id: record for record in self.source.get(keys)}
        if records:
            texts = [record.text for record in records.values()]
            self.target.upsert(list(records.values()), self.encoder.encode(texts, role="document"))
        gone = [key for key in keys if key not in records]
        if gone:
            self.target.delete(gone)
        return records


class _NoLock:
    """Stands for the lock of a store that needs none."""

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


class GuardedStore:
    """One of Mem0's vector stores behind its own interface, one call at a time, with writes sent to a replica too."""

    def __init__(
        self, raw: Any, lock: threading.RLock | None, dropped: Callable[[str], None] = lambda collection: None
    ) -> None:
        self.raw = raw
        self._dropped = dropped
        self.guard: threading.RLock | _NoLock = lock or _NoLock()
        self.replica: Replica | None = None
        #: called after each write, before it is replicated: it may set `replica`
        self.wrote: Callable[[], None] | None = None
        # Rows that were written while `wrote` could not look.
        self._unsure: dict[Any, None] = {}
        #: called with the ids before each write, for a rollback; returns whether there is an index to return to
        self.note: Callable[[Sequence[Any]], bool] | None = None
        # Rows that could not be noted yet.
        self._unnoted: dict[Any, None] = {}

    def __getattr__(self, name: str) -> Any:
        if name == "raw":  # not there yet while the object is being made or copied
            raise AttributeError(name)
        return getattr(self.raw, name)

    def insert(
        self,
        vectors: Sequence[Any],
        payloads: Sequence[dict[str, Any]] | None = None,
        ids: Sequence[Any] | None = None,
    ) -> Any:
        """Insert rows, as Mem0's stores do."""
        # The rows are named here, because a replica has to find them again.
        names = list(ids) if ids is not None else [str(uuid.uuid4()) for _ in vectors]
        self._about_to_write(names)
        try:
            with self.guard:
                return self.raw.insert(vectors=vectors, payloads=payloads, ids=names)
        finally:
            self._replicate(names)

    def update(self, vector_id: Any, vector: Any = None, payload: dict[str, Any] | None = None) -> Any:
        """Change a row's vector, payload or both, as Mem0's stores do."""
        self._about_to_write([vector_id])
        try:
            with self.guard:
                return self.raw.update(vector_id=vector_id, vector=vector, payload=payload)
        finally:
            self._replicate([vector_id])

    def delete(self, vector_id: Any) -> Any:
        """Delete a row, as Mem0's stores do."""
        self._about_to_write([vector_id])
        try:
            with self.guard:
                return self.raw.delete(vector_id=vector_id)
        finally:
            self._replicate([vector_id])

    def search(self, *args: Any, **kwargs: Any) -> Any:
        """Search by vector, as Mem0's stores do."""
        with self.guard:
            return self.raw.search(*args, **kwargs)

    def search_batch(self, *args: Any, **kwargs: Any) -> Any:
        """Search by several vectors, as Mem0's stores do."""
        with self.guard:
            return self.raw.search_batch(*args, **kwargs)

    def keyword_search(self, *args: Any, **kwargs: Any) -> Any:
        """Search by words, as Mem0's stores do."""
        with self.guard:
            return self.raw.keyword_search(*args, **kwargs)

    def get(self, vector_id: Any) -> Any:
        """Return a row or None, as Mem0's stores do."""
        with self.guard:
            return self.raw.get(vector_id=vector_id)

    def list(self, *args: Any, **kwargs: Any) -> Any:
        """List rows, as Mem0's stores do."""
        with self.guard:
            return self.raw.list(*args, **kwargs)

    def reset(self) -> None:
        """Delete every row, here and in the replica."""
        with self.guard:
            self.raw.reset()
        if self.wrote is not None:
            self.wrote()
        if self.replica is not None:
            self.replica.target.clear()

    def drop(self) -> None:
        """Delete the collection itself."""
        with self.guard:
            self.raw.delete_col()
            if provider_of(self.raw) == "faiss":
                from hins_adapter_mem0.faiss_files import forget_faiss

                forget_faiss(self.raw)
        self._dropped(str(self.raw.collection_name))

    def _about_to_write(self, ids: Sequence[Any]) -> None:
        if self.note is None:
            return
        self._unnoted.update(dict.fromkeys(ids))
        try:
            if not self.note(list(self._unnoted)):
                self.note = None
        except LogError as error:
            logger.warning("A write is noted for a rollback later: %s", error)
        else:
            self._unnoted.clear()

    @property
    def in_step(self) -> bool:
        """Whether no write is known that has not reached the replica, if there is one."""
        return not self._unsure and (self.replica is None or self.replica.in_step)

    def settle(self) -> None:
        """Give the replica what was written while it was not known whether there is one."""
        replica, unsure = self.replica, list(self._unsure)
        if replica is not None and unsure:
            replica.push(unsure)
        for id_ in unsure:
            self._unsure.pop(id_, None)

    def _replicate(self, ids: Sequence[Any]) -> None:
        # Looked at after the write: a shadow that appears later finds the write in the store itself.
        if self.wrote is not None:
            try:
                self.wrote()
            except LogError as error:
                # The write is done, and the agent goes on; nobody can flip without the log either.
                logger.warning("Whether %s is being swapped is not known now: %s", self.raw.collection_name, error)
                self._unsure.update(dict.fromkeys(ids))
            else:
                self.settle()
        replica = self.replica
        if replica is not None:
            replica.push(ids)
