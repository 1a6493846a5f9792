"""One collection of Qdrant as an index, embedded or on a server."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from hins_memory.common.chunks import chunks_of
from hins_memory.sdk.retry import with_retries

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hins_memory.plugins.protocols import Record

__all__ = ["QdrantRows"]

# Points that are fetched from Qdrant at a time: the embedded one sorts all of its ids each time.
_SCROLL = 4096
# From this many points on, changing how embedded Qdrant waits for the disk takes less time than it saves.
_WAL_POINTS = 8


class QdrantRows:
    """What an index over a Qdrant collection does with its points; an adapter's index derives from it.

    It gives `client` (Qdrant's), `name` (the collection's), `guard` (excludes other threads where that is needed),
    `as_record` (the record of an id and its payload) and `insert` (writes records with their vectors).
    """

    client: Any
    name: str
    guard: AbstractContextManager[Any]
    as_record: Callable[[Any, Any], Record]
    insert: Callable[[Sequence[Record], NDArray[np.float32]], None]

    def record_id(self, id_: Any) -> str:
        """Return the one spelling of a point id: Qdrant accepts several for a UUID and returns the dashed one."""
        text = str(id_)
        try:
            return text if isinstance(self.native_id(text), int) else str(uuid.UUID(text))
        except ValueError:
            return text

    def count(self) -> int:
        """Return the number of records."""
        with self.guard:
            return int(with_retries(lambda: self.client.count(self.name, exact=True)).count)

    def dimension(self) -> int | None:
        """Return the length of the stored vectors; None where they have names."""
        size = getattr(self.client.get_collection(self.name).config.params.vectors, "size", None)
        return None if size is None else int(size)

    def pages(self, size: int) -> Iterator[list[Record]]:
        """Yield all records in the order of their ids, at most `size` at a time."""
        offset: Any = None
        while True:
            scroll = partial(self.client.scroll, self.name, limit=max(size, _SCROLL), offset=offset)
            with self.guard:
                points, offset = with_retries(partial(scroll, with_payload=True, with_vectors=False))
            for some in chunks_of(points, size):
                yield [self.as_record(point.id, point.payload or {}) for point in some]
            if offset is None:
                return

    def get(self, ids: Sequence[str]) -> list[Record]:
        """Return the records of those ids that exist."""
        return [self.as_record(point.id, point.payload or {}) for point in self._retrieve(ids, with_vectors=False)]

    def vectors(self, ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Return the stored unit vectors by id, each of shape (dim,); missing ids are left out."""
        import numpy as np

        found: dict[str, NDArray[np.float32]] = {}
        for point in self._retrieve(ids, with_vectors=True):
            # A point with a BM25 vector beside the dense one gives both by name; the dense one has no name.
            vector = point.vector.get("") if isinstance(point.vector, dict) else point.vector
            if vector is not None:
                found[self.record_id(point.id)] = np.asarray(vector, dtype=np.float32)
        return found

    def upsert(self, records: Sequence[Record], vectors: NDArray[np.float32]) -> None:
        """Write records with their vectors, of shape (len(records), dim)."""
        synced = self._one_disk_sync() if len(records) >= _WAL_POINTS else nullcontext()
        with self.guard, synced:
            with_retries(lambda: self.insert(records, vectors))

    def delete(self, ids: Iterable[str]) -> None:
        """Delete records; ids that do not exist are ignored."""
        if points := [self.native_id(key) for key in ids]:
            with self.guard:
                with_retries(lambda: self.client.delete(self.name, points_selector=points))

    @contextmanager
    def _one_disk_sync(self) -> Iterator[None]:
        """Let embedded Qdrant wait for the disk once for all points instead of twice for each.

        It commits each point to a SQLite file of its own. In WAL mode with normal synchronisation, commits survive a
        kill as they are, and the disk is waited for when the mode is changed back.
        """
        collections = getattr(getattr(self.client, "_client", None), "collections", None) or {}
        storage = getattr(getattr(collections.get(self.name), "storage", None), "storage", None)
        if not isinstance(storage, sqlite3.Connection):
            yield
            return
        storage.execute("PRAGMA journal_mode=WAL")
        storage.execute("PRAGMA synchronous=NORMAL")
        try:
            yield
        finally:
            storage.execute("PRAGMA synchronous=FULL")
            storage.execute("PRAGMA journal_mode=DELETE")

    def _retrieve(self, ids: Sequence[str], *, with_vectors: bool) -> list[Any]:
        if not ids:
            return []
        points = [self.native_id(key) for key in ids]
        retrieve = partial(self.client.retrieve, self.name, ids=points, with_payload=True, with_vectors=with_vectors)
        with self.guard:
            return list(with_retries(retrieve))

    def native_id(self, key: str) -> Any:
        """Return an id as Qdrant takes it: a number, or a UUID in words."""
        return int(key) if key.isascii() and key.isdigit() and len(key) < 20 else key
