"""The tables of CrewAI's LanceDB storage as indexes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from crewai.memory.storage.lancedb_storage import LanceDBStorage
from crewai_core.lock_store import lock

from hins_memory.plugins.protocols import Record
from hins_memory.sdk import IndexBase, UnlistedIndex, name_in_process

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["LanceIndex", "open_index", "store_name"]

# How many rows are named in one statement.
_AT_ONCE = 200
# Not in a record: the text and the vector, and the time of the last search, which CrewAI writes with every search.
_APART = ("id", "content", "vector", "last_accessed", "_distance", "_rowid")


class LanceIndex(IndexBase):
    """One table of memories: that of a `LanceDBStorage`, or one beside it.

    Args:
        storage: what a `Memory` was made with.
        suffix: of a table beside; "" for its own.
        dim: the length of the vectors of a table beside.
    """

    def __init__(self, storage: Any, suffix: str = "", dim: int | None = None) -> None:
        table = str(storage._table_name)
        super().__init__(f"{table}_hins{suffix}" if suffix else table)
        #: the CrewAI storage over the table
        self.store = storage
        if suffix:
            self.store = type(storage)(storage._path, self.name, dim, compact_every=storage._compact_every)

    @property
    def _table(self) -> Any:
        """The table as it is now, also by other processes; None where nothing was ever stored."""
        store = self.store
        if store._table is not None:
            store._table.checkout_latest()
        elif self.name in store._db.table_names(limit=_AT_ONCE * _AT_ONCE):
            store._table = store._db.open_table(self.name)
            store._vector_dim = store._infer_dim_from_table(store._table)
        return store._table

    def look(self) -> None:
        """Let the next search of the storage find what other processes stored."""
        _ = self._table

    def ids(self) -> list[str]:
        """Return the ids of all rows."""
        table = self._table
        if table is None:
            return []
        rows = table.search().select(["id"]).limit(max(1, table.count_rows())).to_list()
        return list(dict.fromkeys(str(row["id"]) for row in rows))

    def count(self) -> int:
        """Return the number of rows."""
        table = self._table
        return 0 if table is None else int(table.count_rows())

    def get(self, ids: Sequence[str]) -> list[Record]:
        """Return the records of those ids that exist."""
        found = (row for rows in self._rows(ids) for row in rows)
        return [
            Record(str(row["id"]), str(row["content"]), {name: row[name] for name in row if name not in _APART})
            for row in found
        ]

    def vectors(self, ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Return the stored vectors by id, each of shape (dim,); missing ids are left out."""
        import numpy as np

        rows = (row for some in self._rows(ids) for row in some)
        return {str(row["id"]): np.asarray(row["vector"], dtype=np.float32) for row in rows}

    def upsert(self, records: Sequence[Record], vectors: NDArray[np.float32]) -> None:
        """Write records with their vectors, of shape (len(records), dim)."""
        if not records:
            return
        with lock(self.store._lock_name):
            table = self._table
            if table is None:
                table = self.store._table = self.store._ensure_table(vectors.shape[1])
            merge = table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
            merge.execute(
                [
                    {
                        "last_accessed": record.payload.get("created_at"),
                        **record.payload,
                        "id": record.id,
                        "content": record.text,
                        "vector": vector.tolist(),
                    }
                    for record, vector in zip(records, vectors, strict=True)
                ]
            )

    def delete(self, ids: Iterable[str]) -> None:
        """Delete records; ids that do not exist are ignored."""
        keys = list(ids)
        if self._table is not None:
            for start in range(0, len(keys), _AT_ONCE):
                self.store.delete(record_ids=keys[start : start + _AT_ONCE])

    def drop(self) -> None:
        """Delete the table with everything in it."""
        with lock(self.store._lock_name):
            self.store._db.drop_table(self.name, ignore_missing=True)
            self.store._table = None

    def _rows(self, ids: Sequence[str]) -> Iterator[list[Any]]:
        table, keys = self._table, list(dict.fromkeys(ids))
        for start in range(0, len(keys) if table is not None else 0, _AT_ONCE):
            some = keys[start : start + _AT_ONCE]
            named = ", ".join("'" + id_.replace("'", "''") + "'" for id_ in some)
            yield table.search().where(f"id IN ({named})").limit(len(some)).to_list()


def open_index(storage: Any, suffix: str = "", dim: int | None = None) -> Any:
    """Return the index of a storage, or of the table beside it that ends with `suffix`."""
    if isinstance(storage, LanceDBStorage):
        return LanceIndex(storage, suffix, dim)
    return UnlistedIndex(
        storage,
        suffix,
        "Use CrewAI's LanceDB storage; or make the memory with HinsEmbedder, and train with --mode tower.",
    )


def store_name(storage: Any) -> str:
    """Return what identifies a storage in every process, without secrets; of another than LanceDB, in this process."""
    if isinstance(storage, LanceDBStorage):
        return f"crewai:lancedb:{storage._path.resolve()}:{storage._table_name}"
    return f"crewai:{type(storage).__name__}:{name_in_process(storage)}"
