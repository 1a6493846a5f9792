"""One collection of Chroma as an index, embedded or on a server."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any

from hins_memory.plugins.protocols import Record
from hins_memory.sdk.paging import pages_of
from hins_memory.sdk.retry import with_retries

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["ChromaRows"]


class ChromaRows:
    """What an index over a Chroma collection does with its rows; an adapter's index derives from it.

    It gives `collection` (Chroma's object), `guard` (excludes other threads where that is needed) and `as_record` (the
    record of an id and its metadata; not where the texts are Chroma's documents).
    """

    #: whether a record's text is Chroma's document, and not in the metadata
    texts_are_documents = False
    collection: Any
    guard: AbstractContextManager[Any]
    as_record: Callable[[Any, Any], Record]

    def count(self) -> int:
        """Return the number of records."""
        with self.guard:
            return int(with_retries(self.collection.count))

    def dimension(self) -> int | None:
        """Return the length of the stored vectors; None while there are none."""
        with self.guard:
            found = self.collection.get(limit=1, include=["embeddings"])["embeddings"]
        return len(found[0]) if found is not None and len(found) else None

    def pages(self, size: int) -> Iterator[list[Record]]:
        """Yield all records, at most `size` at a time; a record present throughout is yielded once."""
        with self.guard:
            ids = with_retries(lambda: self.collection.get(include=[]))["ids"]
        return pages_of(list(ids), self.get, size)

    def get(self, ids: Sequence[str]) -> list[Record]:
        """Return the records of those ids that exist."""
        if self.texts_are_documents:
            found = self._get(ids, "metadatas", "documents")
            rows = zip(found["ids"], found["documents"], found["metadatas"], strict=True)
            return [Record(id_, text or "", payload or {}) for id_, text, payload in rows]
        found = self._get(ids, "metadatas")
        return [self.as_record(id_, payload) for id_, payload in zip(found["ids"], found["metadatas"], strict=True)]

    def vectors(self, ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Return the stored vectors by id, each of shape (dim,); missing ids are left out."""
        import numpy as np

        found = self._get(ids, "embeddings")
        return {
            id_: np.asarray(vector, dtype=np.float32)
            for id_, vector in zip(found["ids"], found["embeddings"], strict=True)
        }

    def upsert(self, records: Sequence[Record], vectors: NDArray[np.float32]) -> None:
        """Write records with their vectors, of shape (len(records), dim)."""
        if not records:
            return
        with self.guard:
            # Chroma merges metadata: keys that are removed have to be set to None.
            stale = {record.id: dict.fromkeys(record.payload) for record in self.get([row.id for row in records])}
            upsert = partial(self.collection.upsert, ids=[record.id for record in records], embeddings=vectors)
            payloads = [{**stale.get(record.id, {}), **record.payload} for record in records]
            texts = {"documents": [record.text for record in records]} if self.texts_are_documents else {}
            with_retries(lambda: upsert(metadatas=payloads, **texts))

    def delete(self, ids: Iterable[str]) -> None:
        """Delete records; ids that do not exist are ignored."""
        if keys := list(ids):
            with self.guard:
                with_retries(lambda: self.collection.delete(ids=keys))

    def _get(self, ids: Sequence[str], *what: str) -> dict[str, Any]:
        if not ids:
            return {"ids": [], **{one: [] for one in what}}
        with self.guard:
            keys = list(dict.fromkeys(ids))
            found: dict[str, Any] = with_retries(lambda: self.collection.get(ids=keys, include=list(what)))
        return found
