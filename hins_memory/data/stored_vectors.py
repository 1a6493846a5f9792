"""Owners' stored vectors, and what each query is to find among them: what the miner writes, training a tower reads.

A folder of three files: ``vectors.f16``, the vectors of all owners one after the other; ``rows.i32``, the rows of each
query's negatives; ``queries.jsonl``, a line for each query. It holds texts of the log.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hins_memory.data.examples import without_surrogates
from hins_memory.errors import HinsError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["StoredQuery", "StoredVectors", "StoredVectorsWriter"]

_VECTORS, _ROWS, _QUERIES = "vectors.f16", "rows.i32", "queries.jsonl"
# Vectors that are written at a time.
_CHUNK = 8_192


@dataclass(frozen=True, slots=True)
class StoredQuery:
    """A query, and rows among the vectors: of its owner's while it is written, of all when it is read.

    Attributes:
        query: its text.
        positives: memory id -> row.
        negatives: rows that are surely not relevant, of shape (n,).
        sampled: how many of them, at the end, are a random sample; 0 when none is.
        population: how many rows that sample was drawn from.
    """

    query: str
    positives: Mapping[str, int]
    negatives: NDArray[np.int64]
    sampled: int = 0
    population: int = 0


class StoredVectorsWriter:
    """Writes a folder, one owner at a time; what is held does not grow with the number of owners.

    Args:
        folder: made here; must not exist.

    Raises:
        HinsError: a file cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self._vectors = self._rows = 0
        with _disk_errors(folder):
            folder.mkdir(mode=0o700)
            self._files = [self._stack.enter_context((folder / name).open("wb")) for name in (_VECTORS, _ROWS)]
            self._lines = self._stack.enter_context((folder / _QUERIES).open("w", encoding="utf-8"))

    def __enter__(self) -> StoredVectorsWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def add(self, owner: str, vectors: NDArray[Any], queries: Iterable[StoredQuery]) -> None:
        """Write one owner's vectors, of shape (n, dim), and its queries; an owner without queries takes no room.

        Args:
            owner: the scope's key.
            vectors: unit vectors.
            queries: with rows of these vectors.
        """
        import numpy as np

        asked = False
        with _disk_errors(self._folder):
            for one in queries:
                asked = True
                rows = one.negatives.astype(np.int64) + self._vectors
                self._files[1].write(rows.astype(np.int32).tobytes())
                positives = {without_surrogates(name): row + self._vectors for name, row in one.positives.items()}
                asked_by, text = without_surrogates(owner), without_surrogates(one.query)
                line = [asked_by, text, positives, self._rows, len(rows), one.sampled, one.population]
                self._lines.write(json.dumps(line) + "\n")
                self._rows += len(rows)
            if not asked:
                return
            for at in range(0, len(vectors), _CHUNK):
                self._files[0].write(vectors[at : at + _CHUNK].astype(np.float16).tobytes())
            self._vectors += len(vectors)


class StoredVectors:
    """Reads a folder that a writer has closed; vectors and rows stay on the disk.

    Args:
        folder: the folder.

    Raises:
        HinsError: it cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def queries(self) -> Iterator[tuple[str, StoredQuery]]:
        """Yield the owner's key and each query, in the order in which they were written."""
        import numpy as np

        with _disk_errors(self.folder):
            size = (self.folder / _ROWS).stat().st_size // 4
            # An empty file cannot be mapped.
            rows = np.memmap(self.folder / _ROWS, dtype=np.int32, mode="r", shape=(size,)) if size else None
            with (self.folder / _QUERIES).open(encoding="utf-8") as lines:
                for line in lines:
                    owner, query, positives, start, count, sampled, population = json.loads(line)
                    found = np.asarray([] if rows is None else rows[start : start + count], dtype=np.int64)
                    yield owner, StoredQuery(query, positives, found, sampled, population)

    def vectors(self, dim: int) -> NDArray[np.float16]:
        """Return all vectors as a memory map of shape (n, dim)."""
        import numpy as np

        with _disk_errors(self.folder):
            count = (self.folder / _VECTORS).stat().st_size // (2 * dim)
            if not count:
                return np.empty((0, dim), dtype=np.float16)
            return np.memmap(self.folder / _VECTORS, dtype=np.float16, mode="r", shape=(count, dim))


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        raise HinsError(
            f"The stored vectors in {folder} cannot be read or written: {error}.",
            "Free disk space or fix its permissions, and run again.",
        ) from error
