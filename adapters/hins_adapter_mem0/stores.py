"""Mem0's vector stores as this adapter uses them: opened by name, safe between threads, writes sent to a shadow too."""

from __future__ import annotations

import logging
import threading
import uuid
import warnings
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from mem0.utils.factory import VectorStoreFactory

from hins_memory.errors import AgentError

if TYPE_CHECKING:
    from hins_adapter_mem0.index import StoreIndex
    from hins_memory.encoder_source import TextEncoder

__all__ = ["GuardedStore", "Replica", "StoreOpener", "entity_collection", "store_client"]

logger = logging.getLogger(__name__)


def entity_collection(provider: str, collection: str) -> str:
    """Return the name that Mem0 gives to the entity collection of a memory collection."""
    return f"{collection}{'-' if provider == 's3_vectors' else '_'}entities"


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
                raw = VectorStoreFactory.create(self.provider, self.config.model_copy(update=changes))
                self._stores[collection] = raw
        if _is_embedded(self.client):
            raw.is_local = True
        return GuardedStore(raw, self.lock(collection), dropped=self._forget)

    def _forget(self, collection: str) -> None:
        """Open a dropped collection anew the next time."""
        with self._locks_lock:
            self._stores.pop(collection, None)

    def describe(self, collection: str, dim: int) -> tuple[int, int | None]:
        """Return how many records a collection has, and its dimension (None: not there yet, or not known).

        Stores other than Qdrant cannot be asked without creating the collection; then `dim` is used.
        """
        if self.client is None:
            listed = _rows(self.open(collection, dim).list(filters=None, top_k=100_000))
            return len(listed), None
        if not self.client.collection_exists(collection):
            return 0, None
        vectors = self.client.get_collection(collection).config.params.vectors
        size = vectors.size if hasattr(vectors, "size") else None
        return int(self.client.count(collection, exact=True).count), size


def dimension_field(config: Any) -> str:
    """Return the name of the setting that holds the dimension of the vectors."""
    fields = type(config).model_fields
    return next((name for name in ("embedding_model_dims", "embedding_dimension") if name in fields), "dims")


def _rows(listed: Any) -> list[Any]:
    """Return the rows of what a store's `list` gives: some give rows, others a list or tuple that holds them."""
    if isinstance(listed, (list, tuple)) and listed and isinstance(listed[0], (list, tuple)):
        return list(listed[0])
    return list(listed or [])


class Replica:
    """Keeps a shadow index in step with the writes to its source, by copying the state of the rows written.

    Copying what the source holds now, under one lock, means that the order of concurrent writes cannot matter.

    Args:
        source: the index that serves.
        target: the shadow.
        encoder: the shadow's encoder.
        lock: excludes the other writers of the shadow.
    """

    def __init__(self, source: StoreIndex, target: StoreIndex, encoder: TextEncoder, lock: threading.RLock) -> None:
        self.source = source
        self.target = target
        self.encoder = encoder
        #: whether the target serves by now: then a copy that fails is the caller's failure
        self.serving = False
        self._lock = lock
        self._pending: dict[str, None] = {}

    def push(self, ids: Iterable[Any]) -> None:
        """Bring the rows of these ids to the shadow's state of the source; while it is a shadow, never raise."""
        keys = [self.source.key(id_) for id_ in ids]
        try:
            # Encoding here fills the encoder's cache, so that the lock below is held for the writing only.
            self.encoder.encode([record.text for record in self.source.get(keys)], role="document")
            with self._lock:
                self._pending.update(dict.fromkeys(keys))
                self.drain()
        except Exception:
            if self.serving:
                raise
            with self._lock:
                self._pending.update(dict.fromkeys(keys))
            logger.exception("%d writes did not reach the shadow %s yet; they are kept", len(keys), self.target.name)

    def drain(self) -> None:
        """Copy the rows that did not reach the shadow; the caller holds the lock."""
        keys = list(self._pending)
        if not keys:
            return
        records = self.source.get(keys)
        if records:
            self.target.upsert(records, self.encoder.encode([record.text for record in records], role="document"))
        gone = set(keys).difference(record.id for record in records)
        if gone:
            self.target.delete(gone)
        self._pending.clear()


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
        try:
            with self.guard:
                return self.raw.insert(vectors=vectors, payloads=payloads, ids=names)
        finally:
            self._replicate(names)

    def update(self, vector_id: Any, vector: Any = None, payload: dict[str, Any] | None = None) -> Any:
        """Change a row's vector, payload or both, as Mem0's stores do."""
        try:
            with self.guard:
                return self.raw.update(vector_id=vector_id, vector=vector, payload=payload)
        finally:
            self._replicate([vector_id])

    def delete(self, vector_id: Any) -> Any:
        """Delete a row, as Mem0's stores do."""
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
        if self.replica is not None:
            self.replica.target.clear()

    def drop(self) -> None:
        """Delete the collection itself."""
        with self.guard:
            self.raw.delete_col()
        self._dropped(str(self.raw.collection_name))

    def _replicate(self, ids: Sequence[Any]) -> None:
        # Read after the write: a shadow that appears later finds the write in the store itself.
        replica = self.replica
        if replica is not None:
            replica.push(ids)
