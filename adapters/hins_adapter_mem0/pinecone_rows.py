"""Mem0's Pinecone indexes, listed by their ids."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from hins_adapter_mem0.servers import ServerIndex
from hins_memory.sdk.paging import chunks_of
from hins_memory.sdk.retry import with_retries

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pinecone.db_data import Index

    from hins_memory.plugins.protocols import Record

__all__ = ["PineconeIndex"]

logger = logging.getLogger(__name__)

# The most ids that Pinecone lists at a time; a fetch has its ids in its address, too.
_MOST_IDS = 100


class PineconeIndex(ServerIndex):
    """One serverless index of Pinecone, or one namespace of it."""

    def count(self) -> int:
        """Return the number of records, as Pinecone's statistics have it: they lag behind writes."""
        return int(with_retries(self.store.raw.count))

    def dimension(self) -> int | None:
        """Return the length of the stored vectors."""
        dimension: int | None = with_retries(self._index.describe_index_stats).dimension
        return dimension

    def sample(self, count: int) -> list[Record]:
        """Return at most `count` records; an error is raised, where Mem0's list gives nothing."""
        return next(self.listed(count), [])[:count]

    def listed(self, size: int) -> Iterator[list[Record]]:
        """Yield all records, at most `size` and 100 at a time."""
        for ids in self._index.list(limit=min(size, _MOST_IDS), namespace=self._namespace):
            yield self.get(ids)

    def get(self, ids: Sequence[str]) -> list[Record]:
        """Return the records of those ids that exist."""
        return [self.as_record(one.id, one.metadata) for one in self._fetched(ids)]

    def read_vectors(self, ids: Sequence[str]) -> dict[str, Sequence[float] | None]:
        """Return the stored vectors of those ids that exist."""
        return {one.id: one.values for one in self._fetched(ids)}

    def upsert(self, records: Sequence[Record], vectors: NDArray[np.float32]) -> None:
        """Write records with their vectors, of shape (len(records), dim); Mem0's insert replaces what is there."""
        with_retries(partial(self.insert, records, vectors))

    def delete(self, ids: Iterable[str]) -> None:
        """Delete records; ids that do not exist are ignored."""
        for some in chunks_of(list(ids), 1000):
            with_retries(partial(self._index.delete, ids=list(some), namespace=self._namespace))

    def drop(self) -> None:
        """Delete the index, or all of the namespace where there is one."""
        super().drop()
        if self._namespace is not None:
            logger.warning("The namespace %s of %s is empty; delete the index in Pinecone", self._namespace, self.name)

    @property
    def _index(self) -> Index:
        index: Index = self.store.raw.index
        return index

    @property
    def _namespace(self) -> str | None:
        namespace: str | None = self.store.raw.namespace
        return namespace

    def _fetched(self, ids: Sequence[str]) -> list[Any]:
        found: list[Any] = []
        for some in chunks_of(ids, _MOST_IDS):
            fetch = partial(self._index.fetch, ids=list(some), namespace=self._namespace)
            found += with_retries(fetch).vectors.values()
        return found
