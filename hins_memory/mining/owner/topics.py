"""Topics of a conversation: contiguous segments by embedding, joined across sessions; framework labels come first."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["WINDOW", "assign_topics"]

# On average this many memories make a segment; people rarely stay longer on one point in a chat.
_SEGMENT_LENGTH = 4
# Segments whose average cosine distance is below this are one topic that came up again.
_JOIN_DISTANCE = 0.65
# Segments of two conversations are this far from each other: further than any cosine distance.
_APART = 4.0
# Short conversations are done together, up to this many memories: each step costs more to call than to do. Their
# segments are all compared, so that more at a time would take longer.
_TOGETHER = 200
#: Joining compares all pairs of segments, so that a longer conversation is done in windows of this many memories: time
#: grows with the number of memories and not with its square. A topic does not reach over a window's edge.
WINDOW = 2_000


def assign_topics(
    vectors: NDArray[np.float32],
    labels: Sequence[str] | None = None,
    conversations: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """Give each memory of one owner a topic; none reaches from one conversation into another.

    Args:
        vectors: unit vectors of the memories, those of a conversation together and in order of time, shape (n, dim);
            a memory map is read by windows.
        labels: the framework's own topic labels, "" where it has none; equal labels of a conversation are one topic.
        conversations: codes of shape (n,); None for a single conversation.

    Returns:
        Topic codes, shape (n,), counted from 0.
    """
    import numpy as np

    codes = np.zeros(len(vectors), dtype=np.int64) if conversations is None else conversations
    topics = np.full(len(vectors), -1, dtype=np.int64)
    known: dict[tuple[int, str], int] = {}
    for row, label in enumerate(labels or ()):
        if label:
            topics[row] = known.setdefault((int(codes[row]), label), len(known))
    offset = len(known)
    free = np.flatnonzero(topics < 0)
    for start, sizes in _parts(codes[free]):
        rows = free[start : start + sum(sizes)]
        topics[rows] = _topics(np.asarray(vectors[rows], dtype=np.float32), sizes) + offset
        offset = int(topics[rows].max()) + 1
    return topics


def _parts(conversations: NDArray[np.int64]) -> Iterator[tuple[int, list[int]]]:
    """Yield where the windows begin that are done together, and how many memories each of them has."""
    import numpy as np

    edges = [0, *(np.flatnonzero(np.diff(conversations)) + 1).tolist(), len(conversations)]
    first, sizes = 0, list[int]()
    for start, end in itertools.pairwise(edges):
        for at in range(start, end, WINDOW):
            size = min(WINDOW, end - at)
            if sizes and at + size - first > _TOGETHER:
                yield first, sizes
                first, sizes = at, []
            sizes.append(size)
    if sizes:
        yield first, sizes


def _topics(vectors: NDArray[np.float32], sizes: Sequence[int]) -> NDArray[np.int64]:
    """Return topic codes of all memories of some windows.

    Args:
        vectors: those of the windows, one after the other, shape (n, dim).
        sizes: how many memories each window has.
    """
    import numpy as np

    centred = _centred(vectors, sizes)
    lengths = _segment(centred, sizes)
    counts = [len(some) for some in lengths]
    every = list(itertools.chain.from_iterable(lengths))
    centroids = np.add.reduceat(centred, _starts(every))
    return np.repeat(_join(centroids, np.repeat(np.arange(len(counts)), counts)), every)


def _starts(sizes: Sequence[int]) -> list[int]:
    """Return where each of some runs begins, given how long they are."""
    return list(itertools.accumulate(sizes[:-1], initial=0))


def _centred(vectors: NDArray[np.float32], sizes: Sequence[int]) -> NDArray[np.float32]:
    """Return unit vectors, shape (n, dim), after subtracting each window's mean: names, tone, register."""
    import numpy as np

    sums = np.add.reduceat(vectors, _starts(sizes), dtype=np.float32)
    centred = vectors - np.repeat(sums / np.asarray(sizes, dtype=np.float32)[:, None], sizes, axis=0)
    centred /= np.maximum(_lengths(centred), 1e-9)[:, None]
    return np.asarray(centred)


def _lengths(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the length of each vector, shape (n,)."""
    import numpy as np

    return np.asarray(np.sqrt(np.einsum("nd,nd->n", vectors, vectors)))


def _segment(vectors: NDArray[np.float32], sizes: Sequence[int]) -> list[list[int]]:
    """Return how long each window's segments are: Ward clustering of neighbours in time only.

    The same clusters as scikit-learn's AgglomerativeClustering with a chain as its connectivity (a test compares
    them), at a small part of its cost for the about twenty memories of most conversations.

    Args:
        vectors: those of all windows, centred, shape (n, dim).
        sizes: how many memories each window has.
    """
    import numpy as np

    starts = np.asarray(_starts(sizes))
    ends = starts + np.asarray(sizes) - 1
    before, after = np.arange(-1, len(vectors) - 1), np.arange(1, len(vectors) + 1)
    before[starts], after[ends] = starts, ends
    # Short replies ("Sure!") carry no topic of their own: each memory is smoothed with its neighbours.
    smooth = vectors + 0.5 * (vectors[before] + vectors[after])
    # of each sum with itself and with the next one
    squares = np.einsum("nd,nd->n", smooth, smooth).tolist()
    products = np.einsum("nd,nd->n", smooth[:-1], smooth[1:]).tolist()
    found = []
    for start, size in zip(starts.tolist(), sizes, strict=True):
        window = slice(start, start + size)
        between = products[start : start + size - 1]
        found.append(_merged(list(smooth[window]), squares[window], between, round(size / _SEGMENT_LENGTH)))
    return found


def _merged(sums: list[NDArray[np.float32]], squares: list[float], products: list[float], wanted: int) -> list[int]:
    """Merge neighbours until as many as are wanted are left, at least one, and return how long they are.

    Args:
        sums: a window's vectors; these and the others are changed.
        squares: the product of each with itself.
        products: the product of each with the next one.
        wanted: how many.
    """
    sizes = [1] * len(sums)
    if wanted < 2:
        return [len(sums)]
    # what merging each with the next one adds to the variance within
    costs = [0.5 * (one + other) - both for one, other, both in zip(squares, squares[1:], products, strict=False)]
    for _ in range(len(sums) - wanted):
        place = costs.index(min(costs))
        del costs[place]
        squares[place] += squares.pop(place + 1) + 2.0 * products.pop(place)
        sums[place] += sums.pop(place + 1)
        sizes[place] += sizes.pop(place + 1)
        for left in range(max(place - 1, 0), min(place + 1, len(costs))):
            products[left] = both = float(sums[left].dot(sums[left + 1]))
            size, other = sizes[left], sizes[left + 1]
            apart = squares[left] * other / size + squares[left + 1] * size / other - 2.0 * both
            costs[left] = apart / (size + other)
    return sizes


def _join(centroids: NDArray[np.float32], windows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return topic codes of segments, shape (n,): those of a window whose mean vectors are close become one topic.

    Args:
        centroids: the sum of each segment's vectors, shape (n, dim); changed.
        windows: the window that each is of, shape (n,).
    """
    from scipy.cluster.hierarchy import linkage
    from scipy.spatial.distance import squareform

    if len(windows) == windows[-1] + 1:
        return windows
    lengths = _lengths(centroids)
    # Equal texts have zero vectors once centred, which have no cosine: such segments get one common direction.
    none = lengths < 1e-6
    centroids[none] = 0.0
    centroids[none, 0] = lengths[none] = 1.0
    centroids /= lengths[:, None]
    distances = 1.0 - centroids @ centroids.T
    distances[windows[:, None] != windows] = _APART
    return _cut(linkage(squareform(distances, checks=False), method="average"))


def _cut(tree: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the clusters of SciPy's tree below `_JOIN_DISTANCE`, shape (leaves,), counted from 0.

    The same as SciPy's fcluster, which checks and copies the tree for longer than most conversations take to cluster.
    """
    import numpy as np

    leaves = len(tree) + 1
    # Average linkage never joins at a distance below an earlier one's.
    joined = int(np.searchsorted(tree[:, 2], _JOIN_DISTANCE, side="right"))
    parents = list(range(leaves + joined))
    for number, (one, other) in enumerate(tree[:joined, :2].astype(np.int64).tolist(), leaves):
        parents[one] = parents[other] = number
    for node in range(len(parents) - 1, -1, -1):
        parents[node] = parents[parents[node]]
    codes: dict[int, int] = {}
    return np.asarray([codes.setdefault(parent, len(codes)) for parent in parents[:leaves]])
