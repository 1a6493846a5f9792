"""A framework's files as indexes: the vectors in them, which serve, and those of another encoder beside them."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hins_memory.errors import AgentError
from hins_memory.plugins.protocols import Record
from hins_memory.sdk.paging import pages_of
from hins_memory.sdk.vector_cache import VectorCache
from hins_memory.sdk.vector_files import VectorFiles, usable_vectors

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["StoreTexts", "TextIndex"]

_Stamp = tuple[int, int, int]
_Texts = dict[str, dict[str, str]]


class StoreTexts:
    """Every text with a vector in a store's files, by kind and id; a file is read again when it has changed."""

    def __init__(self, files: VectorFiles) -> None:
        self.files = files
        self._lock = threading.Lock()
        self._files: dict[Path, tuple[_Stamp, _Texts]] = {}
        self._merged: _Texts = {kind: {} for kind in self.files.kinds}

    def of(self, kind: str) -> Mapping[str, str]:
        """Return id -> text as the files are now; the mapping is not changed afterwards."""
        with self._lock:
            stamps = {path: stamp for path in self.files.paths() if (stamp := _stamp(path)) is not None}
            if stamps != {path: stamp for path, (stamp, _) in self._files.items()}:
                self._files = {path: self._read(path, stamp) for path, stamp in stamps.items()}
                self._merged = {kind: {} for kind in self.files.kinds}
                for _, texts in self._files.values():
                    for name, found in texts.items():
                        self._merged[name].update(found)
            return self._merged[kind]

    def _read(self, path: Path, stamp: _Stamp) -> tuple[_Stamp, _Texts]:
        known = self._files.get(path)
        if known is not None and known[0] == stamp:
            return known
        texts: _Texts = {kind: {} for kind in self.files.kinds}
        for entry in self.files.entries(path):
            texts[entry.kind][entry.id] = entry.text
        return stamp, texts


def _stamp(path: Path) -> _Stamp | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


class TextIndex:
    """The texts of one kind with the vectors of one encoder.

    Without `cache` the vectors are those in the framework's own files, which only the framework writes. With it they
    are those of another encoder version, kept beside; a text that the framework deletes is gone here too.
    """

    def __init__(self, texts: StoreTexts, kind: str, name: str, cache: VectorCache | None = None) -> None:
        self._texts = texts
        #: which of the kinds of texts
        self.kind = kind
        #: the store's folder, the kind, and the suffix of what serves
        self.name = name
        self._cache = cache

    def count(self) -> int:
        """Return the number of distinct texts that have a vector here."""
        texts = self._texts.of(self.kind)
        return len(texts if self._cache is None else self._cache.known(self.kind, texts))

    def pages(self, size: int) -> Iterator[list[Record]]:
        """Yield all records, at most `size` at a time, as they are when this begins."""
        return pages_of(list(self._texts.of(self.kind)), self.get, size)

    def get(self, ids: Sequence[str]) -> list[Record]:
        """Return the records of those ids that exist and have a vector here."""
        texts = self._texts.of(self.kind)
        known = texts if self._cache is None else self._cache.known(self.kind, ids)
        return [Record(id_, texts[id_], {}) for id_ in ids if id_ in texts and id_ in known]

    def vectors(self, ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Return the stored vectors by id, each of shape (dim,); missing ids are left out."""
        if self._cache is not None:
            return self._cache.get(self.kind, ids)
        wanted = set(ids)
        found: dict[str, NDArray[np.float32]] = {}
        for path in self._texts.files.paths():
            chosen = [
                entry for entry in self._texts.files.entries(path) if entry.kind == self.kind and entry.id in wanted
            ]
            found |= {id_: vector for (_, id_), vector in usable_vectors(chosen).items()}
        return found

    def upsert(self, records: Sequence[Record], vectors: NDArray[np.float32]) -> None:
        """Keep vectors, of shape (len(records), dim)."""
        self._beside.put(self.kind, {record.id: vector for record, vector in zip(records, vectors, strict=True)})

    def delete(self, ids: Iterable[str]) -> None:
        """Forget vectors; ids that do not exist are ignored."""
        self._beside.delete(self.kind, ids)

    def drop(self) -> None:
        """Forget every vector of this kind."""
        self._beside.drop(self.kind)

    @property
    def _beside(self) -> VectorCache:
        if self._cache is None:
            raise AgentError(
                f"{self.name} holds the files of {self._texts.files.framework}.",
                f"Add and delete memories through {self._texts.files.framework}.",
            )
        return self._cache
