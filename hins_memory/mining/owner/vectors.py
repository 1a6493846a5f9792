"""The vectors of one owner: in memory where they fit, else a float16 file; and the search among very many of them."""

from __future__ import annotations

import errno
import functools
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
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

__all__ = ["EXACT_ROWS", "Neighbours", "VectorFolder", "few_threads", "rows_of"]

#: An owner with more memories than this is searched with faiss's inverted file, and each query is compared with its
#: neighbourhood only; up to here, with all memories.
EXACT_ROWS = 20_000
# Texts that are encoded, and vectors that are added to an index, at a time.
_CHUNK = 8_192
# An owner's vectors may take this share of the budget before they are kept in a file.
_IN_MEMORY_SHARE = 0.25
# This many vectors for each list of the inverted file are enough to train it.
_TRAIN_PER_LIST = 40
# Up to this many memories an owner's matrices are small.
_SMALL = 2_000


# What float16 and float32 call 1 differs by this factor where their bits are shifted into each other's places.
_HALF_SCALE = 2.0**112
# The sign and the bits of a float16, in the places that float32 has for them.
_HALF_BITS = -0x70000001


def rows_of(vectors: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return some rows of vectors in memory, as float32: the values that ``astype`` gives, in a third of its time.

    Args:
        vectors: finite numbers of shape (n, dim), float16 or float32.
        rows: which.
    """
    import numpy as np

    found = vectors[rows]
    if found.dtype != np.float16:
        return np.asarray(found, dtype=np.float32)
    # NumPy converts number by number. Three steps over whole arrays instead: the exponent and what follows it move to
    # their places in float32, with the sign in front, and the product corrects the exponent's offset.
    bits = np.asarray(found).view(np.int16).astype(np.int32)
    bits <<= 13
    bits &= np.int32(_HALF_BITS)
    wide = bits.view(np.float32)
    wide *= np.float32(_HALF_SCALE)
    return wide


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
            return np.concatenate([first, *(encoder.encode(texts[at : at + _CHUNK], role=role) for at in chunks)])
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

        return Neighbours(vectors) if isinstance(vectors, np.memmap) else None


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
    """The nearest of very many vectors by cosine: faiss's inverted file, in memory, a byte for each dimension.

    Approximate: for a query one of 64 lists is read, and at least eight. The result is only candidates, which are then
    compared by their own vectors.

    The index is made by the first search: reading an owner's evidence does not need one.

    Args:
        vectors: unit vectors, shape (n, dim).
    """

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        self._vectors = vectors

    @functools.cached_property
    def _index(self) -> Any:
        import faiss
        import numpy as np

        vectors = self._vectors
        count, dim = vectors.shape
        lists = max(1, round(math.sqrt(count)))
        #: kept here, because the index does not own it
        self._quantizer = faiss.IndexFlatIP(dim)
        kind = faiss.ScalarQuantizer.QT_8bit
        index = faiss.IndexIVFScalarQuantizer(self._quantizer, dim, lists, kind, faiss.METRIC_INNER_PRODUCT)
        rows = np.linspace(0, count - 1, min(count, _TRAIN_PER_LIST * lists)).astype(np.int64)
        index.cp.min_points_per_centroid = 1
        index.train(np.ascontiguousarray(vectors[rows], dtype=np.float32))
        for at in range(0, count, _CHUNK):
            index.add(np.ascontiguousarray(vectors[at : at + _CHUNK], dtype=np.float32))
        index.nprobe = max(8, lists // 64)
        return index

    def nearest(self, queries: NDArray[np.float32], count: int) -> NDArray[np.int64]:
        """Return the rows nearest to each query, shape (len(queries), count), best first; -1 where there is no more."""
        import numpy as np

        _, rows = self._index.search(np.ascontiguousarray(queries, dtype=np.float32), count)
        return np.asarray(rows, dtype=np.int64)
