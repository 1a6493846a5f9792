"""Mem0's collections as indexes that can be paged through, copied and dropped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from hins_adapter_mem0.stores import GuardedStore, provider_of
from hins_memory.errors import AgentError
from hins_memory.plugins.protocols import Record
from hins_memory.sdk.dual_write import WriteTracker
from hins_memory.sdk.paging import chunks_of
from hins_memory.sdk.qdrant_rows import QdrantRows

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["QdrantIndex", "StoreIndex", "missing_feature"]

# The limit that means "all" where a store can only list with a limit.
_ALL = 10_000_000

# Why the rows of some of Mem0's stores cannot be copied: what their `list` does not do.
_SEARCHES = "a complete list of its records: Mem0 lists it by a search, which ends after some thousands"
_MISSING_FEATURES = {
    "azure_ai_search": _SEARCHES,
    "databricks": _SEARCHES,
    "langchain": "collections that can be opened by name, and a list of its records",
    "turbopuffer": _SEARCHES,
    "upstash_vector": _SEARCHES,
    "valkey": _SEARCHES,
    "vertex_ai_vector_search": "collections that can be made by name, and a complete list of its records",
}


def missing_feature(store: Any) -> str:
    """Return in words what one of Mem0's stores lacks to be swapped; "" for nothing."""
    return _MISSING_FEATURES.get(provider_of(store), "")


class StoreIndex:
    """One collection through Mem0's own store interface, which every provider has.

    The interface lists without paging and does not give vectors back. Stores whose `list` leaves something out can
    serve, and be swapped to a version that changes queries only; reading all of them for any other swap raises an
    `AgentError` that says what they lack.
    """

    def __init__(self, store: GuardedStore, kind: str) -> None:
        self.store = store
        #: the collection's name
        self.name = str(getattr(store.raw, "collection_name", ""))
        #: ``memories`` or ``entities``
        self.kind = kind

    @property
    def guard(self) -> AbstractContextManager[Any]:
        """Excludes other threads from the store, where it needs that."""
        return self.store.guard

    @property
    def writes(self) -> WriteTracker:
        """What all writes of Mem0 to the collection pass through."""
        return self.store.writes

    def record_id(self, id_: Any) -> str:
        """Return the one spelling of an id under which records are known here."""
        return str(id_)

    def count(self) -> int:
        """Return the number of records."""
        return len(self._all())

    def is_empty(self) -> bool:
        """Return whether there is no record; every store can tell."""
        return not self.sample(1)

    def dimension(self) -> int | None:
        """Return the length of the stored vectors, where the store can be asked for it."""
        return None

    def pages(self, size: int) -> Iterator[list[Record]]:
        """Yield all records, at most `size` at a time; a record present throughout is yielded once."""
        for rows in chunks_of(self._all(), size):
            yield [self._record(row) for row in rows]

    def sample(self, count: int) -> list[Record]:
        """Return at most `count` records, whichever the store lists first; every store can."""
        return [self._record(row) for row in _rows(self.store.list(filters=None, top_k=count))]

    def get(self, ids: Sequence[str]) -> list[Record]:
        """Return the records of those ids that exist."""
        rows = (self.store.get(id_) for id_ in ids)
        return [self._record(row) for row in rows if row is not None]

    def vectors(self, ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Return the stored vectors by id: none, because Mem0's store interface does not give them back."""
        return {}

    def upsert(self, records: Sequence[Record], vectors: NDArray[np.float32]) -> None:
        """Write records with their vectors, of shape (len(records), dim)."""
        with self.guard:
            # Not every store replaces a row on insert; some would keep two vectors of one id.
            self.delete(record.id for record in self.get([record.id for record in records]))
            self.insert(records, vectors)

    def delete(self, ids: Iterable[str]) -> None:
        """Delete records; ids that do not exist are ignored."""
        with self.guard:
            for id_ in ids:
                if self.store.raw.get(vector_id=id_) is not None:
                    self.store.raw.delete(vector_id=id_)

    def clear(self) -> None:
        """Delete every record."""
        with self.guard:
            self.store.raw.reset()

    def drop(self) -> None:
        """Delete the collection itself with everything in it."""
        self.store.drop()

    def insert(self, records: Sequence[Record], vectors: NDArray[np.float32]) -> None:
        """Write new records with their vectors, of shape (len(records), dim), through Mem0's own store."""
        if records:
            self.store.raw.insert(
                vectors=[vector.tolist() for vector in vectors],
                payloads=[dict(record.payload) for record in records],
                ids=[self.native_id(record.id) for record in records],
            )

    def _all(self) -> list[Any]:
        if missing := missing_feature(self.store.raw):
            raise AgentError(
                f"Mem0's {provider_of(self.store.raw)!r} store cannot be re-embedded, because it lacks {missing}.",
                "Use qdrant, pgvector, chroma, faiss or milvus, or train with --mode tower: stored vectors stay.",
            )
        return _rows(self.store.list(filters=None, top_k=_ALL))

    def native_id(self, key: str) -> Any:
        """Return an id as the store takes it."""
        return key

    def _record(self, row: Any) -> Record:
        return self.as_record(row.id, row.payload or {})

    def as_record(self, id_: Any, payload: Any) -> Record:
        """Return the record of an id and its payload."""
        text = (payload or {}).get("data")
        return Record(self.record_id(id_), text if isinstance(text, str) else "", payload or {})


def _rows(listed: Any) -> list[Any]:
    """Return the rows of what a store's `list` gives: some give rows, others a list or tuple that holds them."""
    if isinstance(listed, (list, tuple)) and listed and isinstance(listed[0], (list, tuple)):
        return list(listed[0])
    return list(listed or [])


class QdrantIndex(QdrantRows, StoreIndex):
    """One Qdrant collection, with native paging and its vectors; BM25 vectors follow from the payload in `insert`."""

    @property
    def client(self) -> Any:
        """Qdrant's own client."""
        return self.store.raw.client
