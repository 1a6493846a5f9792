"""The tables of CrewAI's LanceDB storage as indexes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from crewai.memory.storage.lancedb_storage import LanceDBStorage
from crewai_core.lock_store import lock

from hins_memory.plugins.protocols import Record
from hins_memory.sdk import IndexBase, UnlistedIndex, as_arrays, chunks_of, name_in_process

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
        super().__init__(str(storage._table_name), suffix=suffix)
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

    def get(self, ids: Sequence[str]) -> list[Record]:
        """Return the records of those ids that exist."""
        return [
            Record(str(row["id"]), str(row["content"]), {name: row[name] for name in row if name not in _APART})
            for row in self._rows(ids)
        ]

    def vectors(self, ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Return the stored vectors by id, each of shape (dim,); missing ids are left out."""
        return as_arrays({str(row["id"]): row["vector"] for row in self._rows(ids)})

    def upsert(self, records: Sequence[Record], vectors: NDArray[np.float32]) -> None:
        """Write records with their vectors, of shape (len(records), dim)."""
        if not records:
            return
        with lock(self.store._lock_name):
            table = self._table
            if table is None:
                table = self.store._table = self.store._ensure_table(vectors.shape[1])
            rows = [
                {"last_accessed": one.payload.get("created_at"), **one.payload, "id": one.id, "content": one.text}
                for one in records
            ]
            merge = table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
            merge.execute([{**row, "vector": vector} for row, vector in zip(rows, vectors.tolist(), strict=True)])

    def delete(self, ids: Iterable[str]) -> None:
        """Delete records; ids that do not exist are ignored."""
        if self._table is not None:
            for some in chunks_of(list(ids), _AT_ONCE):
                self.store.delete(record_ids=list(some))

    def drop(self) -> None:
        """Delete the table with everything in it."""
        with lock(self.store._lock_name):
            self.store._db.drop_table(self.name, ignore_missing=True)
            self.store._table = None

    def _rows(self, ids: Sequence[str]) -> Iterator[Any]:
        table = self._table
        for some in chunks_of(list(dict.fromkeys(ids)), _AT_ONCE) if table is not None else ():
            named = ", ".join("'" + id_.replace("'", "''") + "'" for id_ in some)
            yield from table.search().where(f"id IN ({named})").limit(len(some)).to_list()


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
