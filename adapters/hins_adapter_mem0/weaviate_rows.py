"""Mem0's Weaviate collections as indexes, listed by Weaviate's cursor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from hins_adapter_mem0.servers import ServerIndex
from hins_memory.errors import AgentError
from hins_memory.sdk.paging import chunks_of
from hins_memory.sdk.retry import with_retries

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from weaviate.collections import Collection

    from hins_memory.plugins.protocols import Record

__all__ = ["WeaviateIndex"]

# Ids that one request names.
_AT_ONCE = 1000


class WeaviateIndex(ServerIndex):
    """One collection of Weaviate. All its properties are a payload, where Mem0 gives back eight of them."""

    def count(self) -> int:
        """Return the number of records."""
        return int(with_retries(partial(self._collection.aggregate.over_all, total_count=True)).total_count or 0)

    def dimension(self) -> int | None:
        """Return None: a collection does not say how long its vectors are."""
        return None

    def listed(self, size: int) -> Iterator[list[Record]]:
        """Yield all records in the order of their ids, at most `size` at a time."""
        objects = self._collection.iterator(cache_size=min(size, 1000))
        for page in chunks_of(objects, size):
            yield [self._as_row(one) for one in page]

    def get(self, ids: Sequence[str]) -> list[Record]:
        """Return the records of those ids that exist."""
        return [self._as_row(one) for one in self._objects(ids, vectors=False)]

    def read_vectors(self, ids: Sequence[str]) -> dict[str, Sequence[float] | None]:
        """Return the stored vectors of those ids that exist."""
        return {str(one.uuid): one.vector.get("default") for one in self._objects(ids, vectors=True)}

    def upsert(self, records: Sequence[Record], vectors: NDArray[np.float32]) -> None:
        """Write records with their vectors, of shape (len(records), dim).

        Raises:
            AgentError: Weaviate has not written all of them.
        """
        from weaviate.classes.data import DataObject

        rows: list[DataObject[Any, None]] = [
            DataObject(properties=dict(record.payload), uuid=record.id, vector=vector.tolist())
            for record, vector in zip(records, vectors, strict=True)
        ]
        if not rows:
            return
        # One that has the id of another one replaces it.
        written = with_retries(partial(self._collection.data.insert_many, rows))
        if written.has_errors:
            first = next(iter(written.errors.values()))
            raise AgentError(
                f"Weaviate has not written {len(written.errors)} of {len(rows)} records: {first.message}.",
                "Look at the server, then run the same command again.",
            )

    def delete(self, ids: Iterable[str]) -> None:
        """Delete records; ids that do not exist are ignored.

        Raises:
            AgentError: Weaviate has not deleted all of them.
        """
        from weaviate.classes.query import Filter

        for some in chunks_of(list(ids), _AT_ONCE):
            where = Filter.by_id().contains_any(some)
            deleted = with_retries(partial(self._collection.data.delete_many, where))
            if deleted.failed:
                raise AgentError(f"Weaviate has not deleted {deleted.failed} records.", "Look at the server.")

    @property
    def _collection(self) -> Collection[Any, Any]:
        collection: Collection[Any, Any] = self.store.raw.client.collections.get(self.name)
        return collection

    def _objects(self, ids: Sequence[str], *, vectors: bool) -> list[Any]:
        found: list[Any] = []
        for some in chunks_of(list(ids), _AT_ONCE):
            fetch = partial(self._collection.query.fetch_objects_by_ids, some, limit=len(some))
            found += with_retries(partial(fetch, include_vector=vectors)).objects
        return found

    def _as_row(self, one: Any) -> Record:
        # A property that an object does not have is None.
        return self.as_record(one.uuid, {name: value for name, value in one.properties.items() if value is not None})
