"""The vectors in a graph as indexes. Vectors of another encoder are in properties beside Graphiti's own, in Kuzu."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hins_memory.plugins.protocols import Record
from hins_memory.sdk import (
    IndexBase,
    TrackedIndex,
    UnlistedIndex,
    address_in,
    as_arrays,
    name_beside,
    name_in_process,
    with_retries,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["FIELDS", "KuzuIndex", "is_kuzu", "open_indexes", "store_name"]

#: kind -> table, text and vector: what Graphiti embeds
FIELDS = {
    "memories": ("RelatesToNode_", "fact", "fact_embedding"),
    "entities": ("Entity", "name", "name_embedding"),
    "communities": ("Community", "name", "name_embedding"),
}


class KuzuIndex(IndexBase):
    """One property of the rows of a table: Graphiti's own vectors, or those of another encoder beside them.

    The rows are Graphiti's. So nothing but vectors is written here, and a row that Graphiti deletes is gone from all.

    Args:
        driver: Graphiti's driver.
        kind: one of `FIELDS`.
        suffix: of a property beside Graphiti's own; "" for that.
    """

    def __init__(self, driver: Any, kind: str, suffix: str = "") -> None:
        self.table, self._text, vector = FIELDS[kind]
        self._property = name_beside(vector, suffix)
        super().__init__(f"{self.table}.{vector}", kind, suffix)
        self._client = driver.client
        if suffix:
            self._run(f"ALTER TABLE {self.table} ADD IF NOT EXISTS {self._property} FLOAT[]")

    def ids(self) -> list[str]:
        """Return the ids of all rows that have a vector."""
        return [row["id"] for row in self._run(f"{self._rows()} RETURN r.uuid AS id")]

    def get(self, ids: Sequence[str]) -> list[Record]:
        """Return the records of those ids that exist."""
        rows = self._run(f"{self._rows(ids)} RETURN r.uuid AS id, r.{self._text} AS text", ids=list(ids))
        return [Record(row["id"], row["text"], {}) for row in rows]

    def vectors(self, ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Return the stored vectors by id, each of shape (dim,); missing ids are left out."""
        rows = self._run(f"{self._rows(ids)} RETURN r.uuid AS id, r.{self._property} AS vector", ids=list(ids))
        return as_arrays({row["id"]: row["vector"] for row in rows})

    def upsert(self, records: Sequence[Record], vectors: NDArray[np.float32]) -> None:
        """Write the vectors, of shape (len(records), dim), of those rows that are still there."""
        for record, vector in zip(records, vectors, strict=True):
            self._set(record.id, vector.tolist())

    def delete(self, ids: Iterable[str]) -> None:
        """Take the vectors from rows; ids that do not exist are ignored."""
        for id_ in ids:
            self._set(id_, None)

    def drop(self) -> None:
        """Delete the property; of Graphiti's own, which its tables need, the vectors."""
        if self.suffix:
            self._run(f"ALTER TABLE {self.table} DROP IF EXISTS {self._property}")
        else:
            self._run(f"MATCH (r:{self.table}) SET r.{self._property} = NULL")

    def _rows(self, ids: Sequence[str] | None = None) -> str:
        chosen = "" if ids is None else "r.uuid IN $ids AND "
        return f"MATCH (r:{self.table}) WHERE {chosen}r.{self._property} IS NOT NULL"

    def _set(self, id_: str, vector: list[float] | None) -> None:
        given = {} if vector is None else {"vector": vector}
        value = "$vector" if given else "NULL"
        self._run(f"MATCH (r:{self.table} {{uuid: $id}}) SET r.{self._property} = {value}", id=id_, **given)

    def _run(self, query: str, **parameters: Any) -> list[dict[str, Any]]:
        """Run a query in the driver's own threads: Kuzu takes one writer at a time, and refuses a second one."""
        client = self._client

        def run() -> list[dict[str, Any]]:
            return list(client.connections[0].execute(query, parameters).rows_as_dict())

        return with_retries(lambda: client.executor.submit(run).result())


def is_kuzu(driver: Any) -> bool:
    """Return whether a driver of Graphiti is that of Kuzu."""
    return str(getattr(driver.provider, "value", "")) == "kuzu"


def open_indexes(driver: Any, suffix: str = "") -> tuple[TrackedIndex, ...]:
    """Return the indexes of a graph: of its facts, and in Kuzu of its entities and communities too."""
    if is_kuzu(driver):
        return tuple(KuzuIndex(driver, kind, suffix) for kind in FIELDS)
    advice = "Use Kuzu; or make the Graphiti with HinsEmbedder, and train with --mode tower."
    return (UnlistedIndex(driver, suffix, advice),)


def store_name(driver: Any) -> str:
    """Return what identifies a graph in every process, without secrets; of one in memory, in this process."""
    if is_kuzu(driver):
        path = str(driver.db.database_path)
        place = name_in_process(driver.db) if path in ("", ":memory:") else str(Path(path).resolve())
        return f"graphiti:kuzu:{place}"
    pool = getattr(driver.client, "_pool", None)
    address = ":".join(map(str, getattr(pool, "address", ()))) or address_in(driver)
    place = name_in_process(driver.client) if address == "default" else address
    return f"graphiti:{driver.provider.value}:{place}:{driver._database}"
