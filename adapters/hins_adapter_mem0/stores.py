"""Mem0's vector stores as this adapter uses them: opened by name, safe between threads, writes sent to a shadow too."""

from __future__ import annotations

import logging
import threading
import uuid
import warnings
import weakref
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from mem0.utils.factory import VectorStoreFactory

from hins_memory.errors import AgentError
from hins_memory.sdk.dual_write import WriteTracker
from hins_memory.sdk.retry import with_retries

__all__ = [
    "GuardedStore",
    "StoreOpener",
    "entity_collection",
    "fitting_name",
    "prepare_store",
    "provider_of",
    "release_store",
    "store_client",
]

logger = logging.getLogger(__name__)


# Stores whose names have small letters, digits and hyphens; Mem0 goes by that for S3 Vectors only.
_HYPHENS = frozenset({"azure_ai_search", "pinecone", "s3_vectors"})


def entity_collection(provider: str, collection: str) -> str:
    """Return the name of the entity collection of a memory collection: Mem0's, where the store takes that."""
    return f"{collection}{'-' if provider in _HYPHENS else '_'}entities"


def fitting_name(provider: str, name: str) -> str:
    """Return the name of a collection as a store takes it; names that it takes already are as they were."""
    if provider in _HYPHENS:
        return name.lower().replace("_", "-")
    return name.lower() if provider in ("elasticsearch", "opensearch") else name


def provider_of(store: Any) -> str:
    """Return Mem0's module name of a store, e.g. ``qdrant``; the same as its provider name but for a few."""
    return type(store).__module__.rpartition(".")[2]


def store_client(store: Any) -> Any:
    """Return the Qdrant client behind a store, or None for the stores of other providers."""
    return store.client if type(store).__module__ == "mem0.vector_stores.qdrant" else None


def _is_embedded(client: Any) -> bool:
    return type(getattr(client, "_client", None)).__name__ == "QdrantLocal"


def prepare_store(raw: Any, collection: str) -> None:
    """Make one of Mem0's stores fit to be swapped: named, saved in one step (faiss), with its own rows only (Redis).

    Raises:
        AgentError: faiss's files are damaged, or Redis does not finish its index.
    """
    if not hasattr(raw, "collection_name"):
        # Some of Mem0's stores do not keep the name that they were opened by.
        raw.collection_name = collection
    if provider_of(raw) == "faiss":
        from hins_adapter_mem0.faiss_files import prepare_faiss

        prepare_faiss(raw)
    elif provider_of(raw) == "redis":
        from hins_adapter_mem0.redis_search import prepare_redis

        prepare_redis(raw)


def release_store(raw: Any) -> None:
    """Restore what `prepare_store` replaced of a store's methods."""
    if provider_of(raw) == "faiss":
        from hins_adapter_mem0.faiss_files import release_faiss

        release_faiss(raw)
    elif provider_of(raw) == "redis":
        from hins_adapter_mem0.redis_search import release_redis

        release_redis(raw)


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
        # Stores that keep their rows in memory, as Mem0's faiss does, must not be opened twice. What another process
        # can drop and make again is opened each time: an object of the dropped one would not find the new one.
        self._stores: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()
        self._locks_lock = threading.Lock()

    @property
    def shared(self) -> bool:
        """Whether several processes can have the store open, as with every store on a server."""
        if self.provider == "chroma":
            named = getattr(self.config, "host", None) or getattr(self.config, "api_key", None)
            server = getattr(getattr(self.config, "client", None), "_server", None)
            return bool(named) or "FastAPI" in type(server).__name__
        if self.provider == "milvus":
            # Else it is Milvus Lite, whose folder one process holds until it ends.
            return not str(self.config.url).endswith(".db")
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
        collection = fitting_name(self.provider, collection)
        changes: dict[str, Any] = {"collection_name": collection}
        changes[dimension_field(self.config)] = dim
        if self.client is not None:
            changes["client"] = self.client
        with self._locks_lock, warnings.catch_warnings():
            # Mem0 asks an embedded Qdrant for payload indexes when it is given a client; they have no effect there.
            warnings.filterwarnings("ignore", message="Payload indexes have no effect")
            raw = None if self.shared else self._stores.get(collection)
            if raw is None:
                raw = self._stores[collection] = self._create(collection, changes)
        if _is_embedded(self.client):
            raw.is_local = True
        return GuardedStore(raw, self.lock(collection), dropped=self._forget)

    def _create(self, collection: str, changes: dict[str, Any]) -> Any:
        config = self.config.model_copy(update=changes)
        if self.provider == "faiss":
            from hins_adapter_mem0.faiss_files import finish_faiss, start_faiss

            finish_faiss(str(config.path), collection)
            start_faiss(config, collection)
        # Two processes may create the same collection at once: one gets an error that it exists, and tries again.
        raw = with_retries(lambda: VectorStoreFactory.create(self.provider, config))
        if self.provider == "milvus":
            # After a restart Milvus Lite answers no query before this, and Mem0 does not do it.
            raw.client.load_collection(collection_name=collection)
        prepare_store(raw, collection)
        return raw

    def _forget(self, collection: str) -> None:
        """Open a dropped collection anew the next time."""
        with self._locks_lock:
            self._stores.pop(collection, None)


def dimension_field(config: Any) -> str:
    """Return the name of the setting that holds the dimension of the vectors."""
    fields = type(config).model_fields
    return next((name for name in ("embedding_model_dims", "embedding_dimension") if name in fields), "dims")


# Methods that read a store; those that write are defined below.
_READS = frozenset({"search", "search_batch", "keyword_search", "get", "list"})


class GuardedStore:
    """One of Mem0's vector stores behind its own interface, one call at a time, with writes sent to a shadow too."""

    def __init__(
        self, raw: Any, lock: threading.RLock | None, dropped: Callable[[str], None] = lambda collection: None
    ) -> None:
        self.raw = raw
        self._dropped = dropped
        self.guard: AbstractContextManager[Any] = lock or nullcontext()
        self.writes = WriteTracker(str(getattr(raw, "collection_name", "")))

    def __getattr__(self, name: str) -> Any:
        if name == "raw":  # missing while the object is being created or copied
            raise AttributeError(name)
        value = getattr(self.raw, name)
        if name not in _READS:
            return value

        def guarded(*args: Any, **kwargs: Any) -> Any:
            with self.guard:
                return value(*args, **kwargs)

        return guarded

    def insert(
        self,
        vectors: Sequence[Any],
        payloads: Sequence[dict[str, Any]] | None = None,
        ids: Sequence[Any] | None = None,
    ) -> Any:
        """Insert rows, as Mem0's stores do."""
        # Ids are made here, because a shadow needs them to find the rows again.
        names = list(ids) if ids is not None else [str(uuid.uuid4()) for _ in vectors]
        with self.writes.tracked(names), self.guard:
            return self.raw.insert(vectors=vectors, payloads=payloads, ids=names)

    def update(self, vector_id: Any, vector: Any = None, payload: dict[str, Any] | None = None) -> Any:
        """Change a row's vector, payload or both, as Mem0's stores do."""
        with self.writes.tracked([vector_id]), self.guard:
            return self.raw.update(vector_id=vector_id, vector=vector, payload=payload)

    def delete(self, vector_id: Any) -> Any:
        """Delete a row, as Mem0's stores do."""
        with self.writes.tracked([vector_id]), self.guard:
            return self.raw.delete(vector_id=vector_id)

    def reset(self) -> None:
        """Delete every row, here and in the shadow."""
        with self.guard:
            self.raw.reset()
        self.writes.copy_clear()

    def drop(self) -> None:
        """Delete the collection itself."""
        with self.guard:
            self.raw.delete_col()
            if provider_of(self.raw) == "faiss":
                from hins_adapter_mem0.faiss_files import forget_faiss

                forget_faiss(self.raw)
        self._dropped(str(self.raw.collection_name))
