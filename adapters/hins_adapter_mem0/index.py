"""Mem0's collections as indexes that can be paged through, copied and dropped."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from hins_adapter_mem0.stores import GuardedStore, _rows, store_client
from hins_memory.agent import Record

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["QdrantIndex", "StoreIndex", "open_index"]

# What stands for "all" where a store can only list with a limit.
_ALL = 10_000_000


def open_index(store: GuardedStore, kind: str) -> StoreIndex:
    """Return a store's index: with native paging for Qdrant, through Mem0's interface for every other store."""
    return QdrantIndex(store, kind) if store_client(store.raw) is not None else StoreIndex(store, kind)


class StoreIndex:
    """One collection through Mem0's own store interface, which every provider has.

    The interface lists without paging and does not give vectors back.
    """

    def __init__(self, store: GuardedStore, kind: str) -> None:
        self.store = store
        self._kind = kind

    @property
    def name(self) -> str:
        """The collection's name."""
        return str(self.store.raw.collection_name)

    @property
    def kind(self) -> str:
        """``memories`` or ``entities``."""
        return self._kind

    def key(self, id_: Any) -> str:
        """Return the one spelling of an id under which records are known here."""
        return str(id_)

    def count(self) -> int:
        """Return the number of records."""
        return len(self._all())

    def pages(self, size: int) -> Iterator[list[Record]]:
        """Yield all records, at most `size` at a time; a record present throughout is yielded once."""
        rows = self._all()
        for start in range(0, len(rows), size):
            yield [self._record(row) for row in rows[start : start + size]]

    def get(self, ids: Sequence[str]) -> list[Record]:
        """Return the records of those ids that exist."""
        rows = (self.store.get(id_) for id_ in ids)
        return [self._record(row) for row in rows if row is not None]

    def vectors(self, ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Return the stored vectors by id: none, because Mem0's store interface does not give them back."""
        return {}

    def upsert(self, records: Sequence[Record], vectors: NDArray[np.float32]) -> None:
        """Write records with their vectors, of shape (len(records), dim)."""
        with self.store.guard:
            # Not every store replaces a row on insert; some would keep two vectors of one id.
            self.delete(record.id for record in self.get([record.id for record in records]))
            self._insert(records, vectors)

    def delete(self, ids: Iterable[str]) -> None:
        """Delete records; ids that do not exist are ignored."""
        with self.store.guard:
            for id_ in ids:
                if self.store.raw.get(vector_id=id_) is not None:
                    self.store.raw.delete(vector_id=id_)

    def clear(self) -> None:
        """Delete every record."""
        with self.store.guard:
            self.store.raw.reset()

    def drop(self) -> None:
        """Delete the collection itself with everything in it."""
        self.store.drop()

    def _insert(self, records: Sequence[Record], vectors: NDArray[np.float32]) -> None:
        if records:
            self.store.raw.insert(
                vectors=[vector.tolist() for vector in vectors],
                payloads=[dict(record.payload) for record in records],
                ids=[self._id(record.id) for record in records],
            )

    def _all(self) -> list[Any]:
        return _rows(self.store.list(filters=None, top_k=_ALL))

    def _id(self, key: str) -> Any:
        return key

    def _record(self, row: Any) -> Record:
        payload = row.payload or {}
        text = payload.get("data")
        return Record(self.key(row.id), text if isinstance(text, str) else "", payload)


class QdrantIndex(StoreIndex):
    """One Qdrant collection, with native paging and its vectors."""

    def key(self, id_: Any) -> str:
        """Return the one spelling of a point id: Qdrant accepts several for a UUID and returns the dashed one."""
        text = str(id_)
        try:
            return text if isinstance(self._id(text), int) else str(uuid.UUID(text))
        except ValueError:
            return text

    def count(self) -> int:
        """Return the number of records."""
        with self.store.guard:
            return int(self._client.count(self.name, exact=True).count)

    def pages(self, size: int) -> Iterator[list[Record]]:
        """Yield all records in the order of their ids, at most `size` at a time."""
        offset: Any = None
        while True:
            with self.store.guard:
                points, offset = self._client.scroll(
                    self.name, limit=size, offset=offset, with_payload=True, with_vectors=False
                )
            if points:
                yield [self._record(point) for point in points]
            if offset is None:
                return

    def get(self, ids: Sequence[str]) -> list[Record]:
        """Return the records of those ids that exist."""
        return [self._record(point) for point in self._retrieve(ids, with_vectors=False)]

    def vectors(self, ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Return the stored unit vectors by id, each of shape (dim,); missing ids are left out."""
        import numpy as np

        found: dict[str, NDArray[np.float32]] = {}
        for point in self._retrieve(ids, with_vectors=True):
            # A point with a BM25 vector beside the dense one gives both by name; the dense one has no name.
            vector = point.vector.get("") if isinstance(point.vector, dict) else point.vector
            if vector is not None:
                found[self.key(point.id)] = np.asarray(vector, dtype=np.float32)
        return found

    def upsert(self, records: Sequence[Record], vectors: NDArray[np.float32]) -> None:
        """Write records with their vectors, of shape (len(records), dim); BM25 vectors follow from the payload."""
        with self.store.guard:
            self._insert(records, vectors)

    def delete(self, ids: Iterable[str]) -> None:
        """Delete records; ids that do not exist are ignored."""
        from qdrant_client.models import PointIdsList

        points = [self._id(key) for key in ids]
        if points:
            with self.store.guard:
                self._client.delete(self.name, points_selector=PointIdsList(points=points))

    @property
    def _client(self) -> Any:
        return self.store.raw.client

    def _retrieve(self, ids: Sequence[str], *, with_vectors: bool) -> list[Any]:
        if not ids:
            return []
        points = [self._id(key) for key in ids]
        with self.store.guard:
            return list(self._client.retrieve(self.name, ids=points, with_payload=True, with_vectors=with_vectors))

    def _id(self, key: str) -> Any:
        return int(key) if key.isascii() and key.isdigit() and len(key) < 20 else key
