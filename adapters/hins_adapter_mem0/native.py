"""Mem0's faiss, Chroma and pgvector collections as indexes, paged and written through the store's own interface."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from hins_adapter_mem0.index import StoreIndex
from hins_memory.sdk.chroma_rows import ChromaRows
from hins_memory.sdk.flat_faiss import keep_places, stored_vectors
from hins_memory.sdk.paging import pages_of
from hins_memory.sdk.retry import with_retries

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hins_memory.plugins.protocols import Record

__all__ = ["ChromaIndex", "FaissIndex", "PgvectorIndex"]


class ChromaIndex(ChromaRows, StoreIndex):
    """One Chroma collection, embedded or on a server."""

    @property
    def collection(self) -> Any:
        """Chroma's own object."""
        return self.store.raw.collection


class PgvectorIndex(StoreIndex):
    """One pgvector table."""

    def record_id(self, id_: Any) -> str:
        """Return the one spelling of an id: PostgreSQL accepts several for a UUID and returns the dashed one."""
        try:
            return str(uuid.UUID(str(id_)))
        except ValueError:
            return str(id_)

    def count(self) -> int:
        """Return the number of records."""
        return int(self._fetch("SELECT count(*) FROM {}")[0][0])

    def dimension(self) -> int | None:
        """Return the length that the table's vectors have."""
        # pgvector keeps the length of a column's vectors as the modifier of its type; -1 means any.
        wanted = "SELECT atttypmod FROM pg_attribute WHERE attrelid = {}::regclass AND attname = 'vector'"
        rows = self._fetch(wanted, literal=True)
        return int(rows[0][0]) if rows and rows[0][0] > 0 else None

    def pages(self, size: int) -> Iterator[list[Record]]:
        """Yield all records in the order of their ids, at most `size` at a time."""
        last = str(uuid.UUID(int=0))
        # The first id may be the smallest possible one.
        comparison = ">="
        while True:
            rows = self._fetch(
                f"SELECT id, payload FROM {{}} WHERE id {comparison} %s::uuid ORDER BY id LIMIT %s", last, size
            )
            if not rows:
                return
            yield [self.as_record(str(id_), payload) for id_, payload in rows]
            last, comparison = str(rows[-1][0]), ">"

    def get(self, ids: Sequence[str]) -> list[Record]:
        """Return the records of those ids that exist."""
        rows = self._by_ids("SELECT id, payload FROM {} WHERE id = ANY(%s::uuid[])", ids)
        return [self.as_record(str(id_), payload) for id_, payload in rows]

    def vectors(self, ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Return the stored vectors by id, each of shape (dim,); missing ids are left out."""
        import numpy as np

        rows = self._by_ids("SELECT id, vector::text FROM {} WHERE id = ANY(%s::uuid[])", ids)
        return {str(id_): np.asarray(json.loads(vector), dtype=np.float32) for id_, vector in rows}

    def upsert(self, records: Sequence[Record], vectors: NDArray[np.float32]) -> None:
        """Write records with their vectors, of shape (len(records), dim), all of them or none."""
        rows = [
            (record.id, vector.tolist(), json.dumps(dict(record.payload)))
            for record, vector in zip(records, vectors, strict=True)
        ]
        statement = self._sql(
            "INSERT INTO {} (id, vector, payload) VALUES (%s, %s, %s) "
            "ON CONFLICT (id) DO UPDATE SET vector = EXCLUDED.vector, payload = EXCLUDED.payload"
        )

        def write() -> None:
            with self.store.raw._get_cursor(commit=True) as cursor:
                cursor.executemany(statement, rows)

        with_retries(write)

    def delete(self, ids: Iterable[str]) -> None:
        """Delete records; ids that do not exist are ignored."""
        keys = list(ids)
        statement = self._sql("DELETE FROM {} WHERE id = ANY(%s::uuid[])")

        def write() -> None:
            with self.store.raw._get_cursor(commit=True) as cursor:
                cursor.execute(statement, (keys,))

        if keys:
            with_retries(write)

    def _by_ids(self, statement: str, ids: Sequence[str]) -> list[Any]:
        return self._fetch(statement, list(ids)) if ids else []

    def _fetch(self, statement: str, *values: Any, literal: bool = False) -> list[Any]:
        prepared = self._sql(statement, literal=literal)

        def read() -> list[Any]:
            with self.store.raw._get_cursor() as cursor:
                cursor.execute(prepared, values or None)
                return list(cursor.fetchall())

        return with_retries(read)

    def _sql(self, statement: str, *, literal: bool = False) -> Any:
        """Return a statement with the table's name put in: as an identifier, or as text that names it."""
        from mem0.vector_stores import pgvector

        # Mem0 makes the table at its first use, and two who do so at once collide: the second try finds it.
        with_retries(self.store.raw._ensure_collection)
        table = self.store.raw._col()
        if literal:
            quoted = self.name.replace('"', '""')
            table = pgvector.sql.Literal(f'"{quoted}"')
        return pgvector.sql.SQL(statement).format(table)


class FaissIndex(StoreIndex):
    """One faiss index of Mem0: flat, kept in memory beside its payloads, all of it saved after each change."""

    def count(self) -> int:
        """Return the number of records."""
        with self.guard:
            return len(self._raw.docstore)

    def dimension(self) -> int | None:
        """Return the length of the stored vectors."""
        return int(self._raw.index.d) if self._raw.index is not None else None

    def pages(self, size: int) -> Iterator[list[Record]]:
        """Yield all records, at most `size` at a time; a record present throughout is yielded once."""
        with self.guard:
            ids = list(self._raw.docstore)
        return pages_of(ids, self.get, size)

    def get(self, ids: Sequence[str]) -> list[Record]:
        """Return the records of those ids that exist."""
        with self.guard:
            payloads = self._raw.docstore
            return [self.as_record(id_, dict(payloads[id_])) for id_ in ids if id_ in payloads]

    def vectors(self, ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Return the stored vectors by id, each of shape (dim,); missing ids are left out."""
        with self.guard:
            places = self._places(ids)
            return {id_: self._raw.index.reconstruct(place) for id_, place in places.items()}

    def upsert(self, records: Sequence[Record], vectors: NDArray[np.float32]) -> None:
        """Write records with their vectors, of shape (len(records), dim), all of them or none."""
        import faiss
        import numpy as np

        if not records:
            return
        raw = self._raw
        rows = np.array(vectors, dtype=np.float32)
        if raw._should_normalize():
            faiss.normalize_L2(rows)
        with self.guard:
            known = self._places([record.id for record in records])
            stored = stored_vectors(raw.index)
            new = [number for number, record in enumerate(records) if record.id not in known]
            # Known ones keep their places: a kill between the two files that Mem0 saves must not shift the others.
            for number, record in enumerate(records):
                if record.id in known:
                    stored[known[record.id]] = rows[number]
            first = len(raw.index_to_id)
            if new:
                raw.index.add(rows[new])
            raw.index_to_id.update({first + place: records[number].id for place, number in enumerate(new)})
            raw.docstore.update({record.id: dict(record.payload) for record in records})
            raw._save()

    def delete(self, ids: Iterable[str]) -> None:
        """Delete records; ids that do not exist are ignored."""
        raw = self._raw
        with self.guard:
            places = self._places(list(ids))
            if not places:
                return
            gone = set(places.values())
            kept = [place for place in sorted(raw.index_to_id) if place not in gone]
            keep_places(raw.index, kept)
            raw.index_to_id = dict(enumerate(raw.index_to_id[place] for place in kept))
            raw.docstore = {id_: payload for id_, payload in raw.docstore.items() if id_ not in places}
            raw._save()

    @property
    def _raw(self) -> Any:
        return self.store.raw

    def _places(self, ids: Sequence[str]) -> dict[str, int]:
        wanted = set(ids)
        return {id_: place for place, id_ in self._raw.index_to_id.items() if id_ in wanted}
