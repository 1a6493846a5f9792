"""Mem0's Supabase collections as indexes, paged and read through the table of the package vecs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from hins_adapter_mem0.index import StoreIndex
from hins_memory.sdk.retry import with_retries

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hins_memory.plugins.protocols import Record

__all__ = ["SupabaseIndex"]


class SupabaseIndex(StoreIndex):
    """One collection of vecs: a table of PostgreSQL with pgvector."""

    def count(self) -> int:
        """Return the number of records."""
        return int(self._rows(lambda table: sa.select(sa.func.count()).select_from(table))[0][0])

    def dimension(self) -> int | None:
        """Return the length that the collection's vectors have."""
        return int(self.store.raw.collection.dimension)

    def pages(self, size: int) -> Iterator[list[Record]]:
        """Yield all records in the order of their ids, at most `size` at a time."""
        last: str | None = None
        while rows := self._page(last, size):
            yield [self.as_record(row.id, row.metadata) for row in rows]
            last = rows[-1].id

    def get(self, ids: Sequence[str]) -> list[Record]:
        """Return the records of those ids that exist."""
        rows = self._rows(lambda table: sa.select(table.c.id, table.c.metadata).where(table.c.id.in_(ids)))
        return [self.as_record(row.id, row.metadata) for row in rows]

    def vectors(self, ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Return the stored vectors by id, each of shape (dim,); missing ids are left out."""
        import numpy as np

        rows = self._rows(lambda table: sa.select(table.c.id, table.c.vec).where(table.c.id.in_(ids)))
        return {row.id: np.asarray(row.vec, dtype=np.float32) for row in rows}

    def upsert(self, records: Sequence[Record], vectors: NDArray[np.float32]) -> None:
        """Write records with their vectors, of shape (len(records), dim)."""
        rows = [
            (record.id, vector.tolist(), dict(record.payload)) for record, vector in zip(records, vectors, strict=True)
        ]
        if rows:
            with_retries(lambda: self.store.raw.collection.upsert(rows))

    def delete(self, ids: Iterable[str]) -> None:
        """Delete records; ids that do not exist are ignored."""
        if keys := list(ids):
            with_retries(lambda: self.store.raw.collection.delete(ids=keys))

    def _page(self, last: str | None, size: int) -> list[Any]:
        def statement(table: sa.Table) -> sa.Select[Any]:
            rows = sa.select(table.c.id, table.c.metadata).order_by(table.c.id).limit(size)
            return rows if last is None else rows.where(table.c.id > last)

        return self._rows(statement)

    def _rows(self, statement: Callable[[sa.Table], sa.Select[Any]]) -> list[Any]:
        def read() -> list[Any]:
            with self.store.raw.db.Session() as session:
                return list(session.execute(statement(self.store.raw.collection.table)))

        return with_retries(read)
