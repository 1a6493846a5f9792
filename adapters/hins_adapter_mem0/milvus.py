"""Mem0's Milvus collections as indexes, paged and written through Milvus's own client."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from hins_adapter_mem0.index import StoreIndex
from hins_memory.sdk.retry import with_retries

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hins_memory.plugins.protocols import Record

__all__ = ["MilvusIndex"]

# Milvus gives at most 16,384 rows at a time.
_MOST_ROWS = 16_384


class MilvusIndex(StoreIndex):
    """One Milvus collection, of Milvus Lite or a server.

    Reads ask for what is acknowledged (consistency ``Strong``): by default Milvus may answer with what was there some
    seconds ago.
    """

    def count(self) -> int:
        """Return the number of records."""
        (row,) = self._query(filter="", output_fields=["count(*)"])
        return int(row["count(*)"])

    def dimension(self) -> int | None:
        """Return the length of the stored vectors."""
        fields = self._client.describe_collection(collection_name=self.name)["fields"]
        return next((int(field["params"]["dim"]) for field in fields if field["name"] == "vectors"), None)

    def pages(self, size: int) -> Iterator[list[Record]]:
        """Yield all records in the order of their ids, at most `size` at a time."""
        options = {"output_fields": ["id", "metadata"], "consistency_level": "Strong"}
        iterator = self._client.query_iterator(
            collection_name=self.name, batch_size=min(size, _MOST_ROWS), filter="", **options
        )
        try:
            while rows := with_retries(iterator.next):
                yield [self._as_record(row) for row in rows]
        finally:
            iterator.close()

    def get(self, ids: Sequence[str]) -> list[Record]:
        """Return the records of those ids that exist."""
        return [self._as_record(row) for row in self._by_ids(ids, "metadata")]

    def vectors(self, ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Return the stored vectors by id, each of shape (dim,); missing ids are left out."""
        import numpy as np

        return {row["id"]: np.asarray(row["vectors"], dtype=np.float32) for row in self._by_ids(ids, "vectors")}

    def upsert(self, records: Sequence[Record], vectors: NDArray[np.float32]) -> None:
        """Write records with their vectors, of shape (len(records), dim)."""
        rows = [self._row(record, vector) for record, vector in zip(records, vectors, strict=True)]
        if rows:
            with_retries(partial(self._client.upsert, collection_name=self.name, data=rows))

    def delete(self, ids: Iterable[str]) -> None:
        """Delete records; ids that do not exist are ignored."""
        if keys := list(ids):
            with_retries(partial(self._client.delete, collection_name=self.name, ids=keys))

    @property
    def _client(self) -> Any:
        return self.store.raw.client

    def _as_record(self, row: Any) -> Record:
        return self.as_record(row["id"], row["metadata"])

    def _row(self, record: Record, vector: NDArray[np.float32]) -> dict[str, Any]:
        payload = dict(record.payload)
        row = {"id": record.id, "vectors": vector.tolist(), "metadata": payload}
        if self.store.raw._has_bm25_schema:
            # As Mem0 fills the field that Milvus searches by keywords.
            row["text"] = (payload.get("text_lemmatized") or payload.get("data", ""))[:65535]
        return row

    def _by_ids(self, ids: Sequence[str], field: str) -> list[Any]:
        if not ids:
            return []
        get = partial(self._client.get, collection_name=self.name, ids=list(dict.fromkeys(ids)))
        return list(with_retries(partial(get, output_fields=["id", field], consistency_level="Strong")))

    def _query(self, **options: Any) -> list[Any]:
        query = partial(self._client.query, collection_name=self.name, consistency_level="Strong")
        return list(with_retries(partial(query, **options)))
