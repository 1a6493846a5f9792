"""The vectors of one owner: in memory where they fit, else a float16 file; and the search among very many of them."""

from __future__ import annotations

import errno
import functools
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hins_memory.errors import HinsError
from hins_memory.mining.settings import MineSettings
from hins_memory.types import Role

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hins_memory.encoders.encoder import Encoder

    #: Tells which rows columns of a block's cosines are, -1 for none; both have shape (queries, any).
    RowsOfColumns = Callable[[NDArray[np.int64]], NDArray[np.int64]]

__all__ = ["EXACT_ROWS", "Neighbours", "VectorFolder", "best_columns", "few_threads", "rows_of"]

#: An owner with more memories than this is searched by the lists of an inverted file, and each query is compared with
#: its neighbourhood only; up to here, with all memories.
EXACT_ROWS = 20_000
# Texts that are encoded, and vectors that are given to lists, at a time.
_CHUNK = 8_192
# An owner's vectors may take this share of the budget before they are kept in a file.
_IN_MEMORY_SHARE = 0.25
# This many vectors for each list of the inverted file are enough to train it.
_TRAIN_PER_LIST = 40
# A search holds as many cosines as the budget has bytes, divided by this.
_COSINES_SHARE = 128
# Scores are first compared in groups of this many.
_FOLDED = 16
# Up to this many memories an owner's matrices are small.
_SMALL = 2_000


# What float16 and float32 call 1 differs by this factor where their bits are shifted into each other's places.
_HALF_SCALE = 2.0**112
# The sign and the bits of a float16, in the places that float32 has for them.
_HALF_BITS = -0x70000001


def rows_of(vectors: NDArray[Any], rows: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
    """Return some rows of vectors in memory, as float32: the values that ``astype`` gives, in a third of its time.

    Args:
        vectors: finite numbers of shape (n, dim), float16 or float32.
        rows: which.
    """
    import numpy as np

    # not as a memory map, whose every part would cost more than an array's
    found = np.asarray(vectors)[rows]
    if found.dtype != np.float16:
        return np.asarray(found, dtype=np.float32)
    # NumPy converts number by number. Three steps over whole arrays instead: the exponent and what follows it move to
    # their places in float32, with the sign in front, and the product corrects the exponent's offset.
    bits = found.view(np.int16).astype(np.int32)
    bits <<= 13
    bits &= np.int32(_HALF_BITS)
    wide = bits.view(np.float32)
    wide *= np.float32(_HALF_SCALE)
    return np.asarray(wide)


def few_threads(memories: int) -> AbstractContextManager[object]:
    """Return a context in which small matrices are multiplied in one thread: more threads would be slower.

    Args:
        memories: how many memories the current owner has.
    """
    if memories > _SMALL:
        return nullcontext()
    limits: AbstractContextManager[object] = _thread_pools().limit(limits=1, user_api="blas")
    return limits


@functools.cache
def _thread_pools() -> Any:
    import numpy as np  # noqa: F401 - its BLAS has to be there to be found
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


class VectorFolder:
    """Where the vectors of owners that do not fit into memory are kept while they are mined.

    Args:
        settings: `memory_budget` says what fits.
        parent: the folder under which temporary files are made; None means the system's.
    """

    def __init__(self, settings: MineSettings, parent: Path | None = None) -> None:
        self._settings = settings
        self._parent = parent
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    @contextmanager
    def owner(self) -> Iterator[VectorFolder]:
        """Yield this folder for one owner, and remove the owner's files at the end."""
        try:
            yield self
        finally:
            if self._folder is not None:
                self._folder.cleanup()
                self._folder = None

    def _file(self, name: str) -> Path:
        if self._folder is None:
            prefix = "vectors-" if self._parent else "hins-vectors-"
            self._folder = tempfile.TemporaryDirectory(prefix=prefix, dir=self._parent)
        return Path(self._folder.name) / name

    def encode(self, encoder: Encoder, texts: Sequence[str], role: Role = "document") -> NDArray[np.float32]:
        """Return the texts' unit vectors, shape (n, dim): float32 in memory, or a float16 memory map.

        Raises:
            HinsError: the disk has no room for the memory map.
        """
        import numpy as np

        first = encoder.encode(texts[:_CHUNK], role=role)
        budget = self._settings.memory_budget * _IN_MEMORY_SHARE
        chunks = range(_CHUNK, len(texts), _CHUNK)
        if len(texts) <= EXACT_ROWS and first.shape[1] * 4 * len(texts) <= budget:
            others = [encoder.encode(texts[at : at + _CHUNK], role=role) for at in chunks]
            return np.concatenate([first, *others]) if others else first
        mapped = self._map(f"{role}.f16", len(texts), first.shape[1])
        mapped[: len(first)] = first
        for at in chunks:
            mapped[at : at + _CHUNK] = encoder.encode(texts[at : at + _CHUNK], role=role)
        return mapped  # type: ignore[return-value]

    def _map(self, name: str, count: int, dim: int) -> NDArray[np.float16]:
        """Return a new float16 memory map of shape (count, dim)."""
        import numpy as np

        path = self._file(name)
        try:
            _reserve(path, count * dim * 2)
        except OSError as error:
            raise HinsError(
                f"There is no room for {count} vectors in {path.parent.parent}: {error}.",
                "Free some disk space and run again; what was mined already is kept.",
            ) from error
        return np.memmap(path, dtype=np.float16, mode="r+", shape=(count, dim))

    def rows(self, vectors: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return some rows of vectors as `encode` gave them: in memory, or as another memory map."""
        import numpy as np

        if not isinstance(vectors, np.memmap):
            return vectors[rows]
        mapped = self._map("kept.f16", len(rows), vectors.shape[1])
        for at in range(0, len(rows), _CHUNK):
            mapped[at : at + _CHUNK] = vectors[rows[at : at + _CHUNK]]
        return mapped  # type: ignore[return-value]

    def neighbours(self, vectors: NDArray[np.float32]) -> Neighbours | None:
        """Return the search among mapped vectors; None for those in memory, which are compared in full."""
        import numpy as np

        numbers = self._settings.memory_budget // _COSINES_SHARE
        return Neighbours(vectors, numbers) if isinstance(vectors, np.memmap) else None


def _reserve(path: Path, size: int) -> None:
    """Make a file of `size` bytes with its blocks on disk: writing into a map of a full disk would kill the process."""
    if (free := shutil.disk_usage(path.parent).free) < size:
        raise OSError(errno.ENOSPC, f"{size} bytes are needed and {free} are free")
    with path.open("wb") as stream:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(stream.fileno(), 0, size)
        else:  # macOS
            stream.truncate(size)


class Neighbours:
    """The nearest of very many vectors by cosine: the lists of an inverted file, and the vectors themselves.

    Approximate: for a query one of 64 lists is read, and at least eight. Queries are compared list by list, so that a
    list's vectors are read once for all queries of a block, and multiplied as matrices. Only the lists are in memory.

    The lists are made by the first search: reading an owner's evidence does not need them.

    Args:
        vectors: unit vectors, shape (n, dim).
        numbers: how many cosines may be held at a time.
    """

    def __init__(self, vectors: NDArray[np.float32], numbers: int) -> None:
        self._vectors = vectors
        self._numbers = numbers
        #: how many vectors queries were compared with so far
        self.compared = 0

    @functools.cached_property
    def _lists(self) -> tuple[Any, NDArray[np.int32], NDArray[np.int64]]:
        """The lists' centres, the rows of one list after the other, and where each list begins, with the end."""
        import faiss
        import numpy as np

        vectors = self._vectors
        count, dim = vectors.shape
        lists = max(1, round(math.sqrt(count)))
        centres = faiss.IndexFlatIP(dim)
        index = faiss.IndexIVFFlat(centres, dim, lists, faiss.METRIC_INNER_PRODUCT)
        rows = np.linspace(0, count - 1, min(count, _TRAIN_PER_LIST * lists)).astype(np.int64)
        index.cp.min_points_per_centroid = 1
        index.train(rows_of(vectors, rows))
        chunks = [np.arange(at, min(at + _CHUNK, count)) for at in range(0, count, _CHUNK)]
        codes = np.concatenate([centres.search(rows_of(vectors, chunk), 1)[1][:, 0] for chunk in chunks])
        order = np.argsort(codes, kind="stable").astype(np.int32)
        return centres, order, np.searchsorted(codes[order], np.arange(lists + 1))

    def cosines(self, queries: NDArray[np.float32]) -> Iterator[tuple[slice, NDArray[np.float32], RowsOfColumns]]:
        """Yield blocks of queries with their cosines, in any order, and what tells the rows of their columns.

        The cosines have shape (queries, k), -inf where there are no more.

        Args:
            queries: shape (queries, dim).
        """
        import numpy as np

        centres, _, starts = self._lists
        sizes = np.diff(starts)
        read = min(len(sizes), max(8, len(sizes) // 64))
        for begin in range(0, len(queries), _CHUNK):
            part = np.ascontiguousarray(queries[begin : begin + _CHUNK], dtype=np.float32)
            lists = centres.search(part, read)[1]
            ends = sizes[lists].cumsum(axis=1)
            step = max(1, self._numbers // int(ends[:, -1].max()))
            for at in range(0, len(part), step):
                block = slice(at, at + step)
                found = self._block(part[block], lists[block], ends[block])
                yield slice(begin + at, min(begin + at + step, begin + len(part))), *found

    def _block(
        self, queries: NDArray[np.float32], lists: NDArray[np.int64], ends: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], RowsOfColumns]:
        import numpy as np

        _, order, starts = self._lists
        width, read = int(ends[:, -1].max()), lists.shape[1]
        self.compared += int(ends[:, -1].sum())
        begins = ends - np.diff(starts)[lists]
        found = np.full((len(queries), width), -np.inf, dtype=np.float32)
        by_list = np.argsort(lists, axis=None, kind="stable")
        edges = np.searchsorted(lists.ravel()[by_list], np.arange(len(starts)))
        places = (np.arange(len(queries))[:, None] * width + begins).ravel()
        for number in np.flatnonzero(np.diff(edges)).tolist():
            asking = by_list[edges[number] : edges[number + 1]]
            vectors = rows_of(self._vectors, order[starts[number] : starts[number + 1]])
            found.reshape(-1)[places[asking][:, None] + np.arange(len(vectors))] = queries[asking // read] @ vectors.T

        def rows(columns: NDArray[np.int64]) -> NDArray[np.int64]:
            which = np.count_nonzero(columns[:, :, None] >= ends[:, None, :-1], axis=2)
            moved = columns + np.take_along_axis(starts[lists] - begins, which, axis=1)
            # Beyond the last list there is nothing.
            return np.where(columns < ends[:, -1:], order[np.minimum(moved, len(order) - 1)], -1).astype(np.int64)

        return found, rows

    def nearest(self, queries: NDArray[np.float32], count: int) -> NDArray[np.int64]:
        """Return the rows nearest to each query, shape (len(queries), count), best first; -1 where there is no more."""
        import numpy as np

        found = np.full((len(queries), count), -1, dtype=np.int64)
        for block, cosines, rows in self.cosines(queries):
            columns = best_columns(cosines, count)
            found[block, : columns.shape[1]] = rows(columns)
        return found


def best_columns(scores: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Return the columns of the highest scores of each row, best first, shape (rows, up to count)."""
    import numpy as np

    rows, width = scores.shape
    count = min(count, width)
    depth = width // _FOLDED
    part: NDArray[np.int64] | None = None
    if count < depth // 2:
        # Of the highest, each is in a group whose own highest is among the highest of the groups.
        groups = scores[:, : depth * _FOLDED].reshape(rows, _FOLDED, depth).max(axis=1)
        best = np.argpartition(groups, -count, axis=1)[:, -count:]
        inside = (best[:, None, :] + (np.arange(_FOLDED) * depth)[:, None]).reshape(rows, -1)
        rest = np.broadcast_to(np.arange(depth * _FOLDED, width), (rows, width - depth * _FOLDED))
        part = np.concatenate([inside, rest], axis=1)
        scores = np.take_along_axis(scores, part, axis=1)
    if count < scores.shape[1]:
        top = np.argpartition(scores, -count, axis=1)[:, -count:]
        part = top if part is None else np.take_along_axis(part, top, axis=1)
        scores = np.take_along_axis(scores, top, axis=1)
    order = np.argsort(-scores, axis=1)
    return order if part is None else np.take_along_axis(part, order, axis=1)
