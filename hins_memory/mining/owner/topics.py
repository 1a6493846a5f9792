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
    for windows in _parts(codes[free]):
        rows = free[windows[0].start : windows[-1].stop]
        topics[rows] = _topics([vectors[free[window]] for window in windows]) + offset
        offset = int(topics[rows].max()) + 1
    return topics


def _parts(conversations: NDArray[np.int64]) -> Iterator[list[slice]]:
    """Yield the windows of the conversations, those that are done together at a time."""
    import numpy as np

    edges = [0, *(np.flatnonzero(np.diff(conversations)) + 1).tolist(), len(conversations)]
    part: list[slice] = []
    for start, end in itertools.pairwise(edges):
        for at in range(start, end, WINDOW):
            window = slice(at, min(at + WINDOW, end))
            if part and window.stop - part[0].start > _TOGETHER:
                yield part
                part = []
            part.append(window)
    if part:
        yield part


def _topics(windows: Sequence[NDArray[np.float32]]) -> NDArray[np.int64]:
    """Return topic codes of all memories of some windows, given the vectors of each, shape (n, dim)."""
    import numpy as np

    centroids: list[NDArray[np.float32]] = []
    counts: list[int] = []
    sizes: list[int] = []
    for vectors in windows:
        # One window at a time: arrays of a whole owner are so large that each would be fresh memory of the system's.
        centred = _centred(vectors)
        segments, lengths = _segment(centred)
        centroids.append(segments)
        counts.append(len(segments))
        sizes += lengths
    topics = _join(np.concatenate(centroids), np.repeat(np.arange(len(counts)), counts))
    return np.repeat(topics, sizes)


def _centred(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return unit vectors, shape (n, dim), after subtracting the conversation's mean: names, tone, register."""
    import numpy as np

    vectors = np.asarray(vectors, dtype=np.float32)
    centred = vectors - vectors.sum(axis=0) / len(vectors)
    centred /= np.maximum(_lengths(centred), 1e-9)[:, None]
    return np.asarray(centred)


def _lengths(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the length of each vector, shape (n,)."""
    import numpy as np

    return np.asarray(np.sqrt(np.einsum("nd,nd->n", vectors, vectors)))


def _segment(vectors: NDArray[np.float32]) -> tuple[NDArray[np.float32], list[int]]:
    """Return the sum of each segment's vectors and how many they are: Ward clustering of neighbours in time only.

    The same clusters as scikit-learn's AgglomerativeClustering with a chain as its connectivity (a test compares
    them), at a small part of its cost for the about twenty memories of most conversations.

    Args:
        vectors: those of a window, shape (n, dim), in order.
    """
    import numpy as np

    wanted = round(len(vectors) / _SEGMENT_LENGTH)
    if wanted < 2:
        return vectors.sum(axis=0)[None], [len(vectors)]
    # Short replies ("Sure!") carry no topic of their own: each memory is smoothed with its neighbours.
    half = vectors * 0.5
    smooth = np.concatenate([half[:1], half[:-1]])
    smooth += vectors
    smooth += np.concatenate([half[1:], half[-1:]])
    sums, sizes = list(smooth), [1] * len(smooth)
    # of each sum with itself and with the next one, and what merging those two adds to the variance within
    squares = np.einsum("nd,nd->n", smooth, smooth).tolist()
    products = np.einsum("nd,nd->n", smooth[:-1], smooth[1:]).tolist()
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
    return np.add.reduceat(vectors, list(itertools.accumulate(sizes[:-1], initial=0))), sizes


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
