"""Topics of a conversation: contiguous segments by embedding, joined across sessions; framework labels come first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["WINDOW", "assign_topics"]

# On average this many memories make a segment; people rarely stay longer on one point in a chat.
_SEGMENT_LENGTH = 4
# Segments whose average cosine distance is below this are one topic that came up again.
_JOIN_DISTANCE = 0.65
#: Joining compares all pairs of segments, so that a longer conversation is done in windows of this many memories: time
#: grows with the number of memories and not with its square. A topic does not reach over a window's edge.
WINDOW = 2_000


def assign_topics(vectors: NDArray[np.float32], labels: Sequence[str] | None = None) -> NDArray[np.int64]:
    """Give each memory of one conversation a topic.

    Args:
        vectors: unit vectors of the memories in order of time, shape (n, dim); a memory map is read by windows.
        labels: the framework's own topic labels, "" where it has none; equal labels are one topic.

    Returns:
        Topic codes, shape (n,), counted from 0.
    """
    import numpy as np

    labels = labels or [""] * len(vectors)
    known = {label: code for code, label in enumerate(dict.fromkeys(label for label in labels if label))}
    topics = np.asarray([known.get(label, -1) for label in labels], dtype=np.int64)
    offset = len(known)
    free = np.flatnonzero(topics < 0)
    for start in range(0, len(free), WINDOW):
        window = free[start : start + WINDOW]
        centred = _centred(vectors[window])
        topics[window] = _join(centred, _segment(centred)) + offset
        offset = int(topics[window].max()) + 1
    return topics


def _centred(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return unit vectors, shape (n, dim), after subtracting the conversation's mean: names, tone, register."""
    import numpy as np

    wide = vectors.astype(np.float64)
    centred = wide - wide.mean(axis=0)
    return np.asarray(centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-9))


def _segment(vectors: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return contiguous segment codes, shape (n,): Ward clustering in which only neighbours in time may merge.

    The same clusters as scikit-learn's AgglomerativeClustering with a chain as its connectivity (a test compares
    them), at a tenth of its cost for the about twenty memories of most conversations.
    """
    import numpy as np

    count = len(vectors)
    wanted = round(count / _SEGMENT_LENGTH)
    if wanted < 2:
        return np.zeros(count, dtype=np.int64)
    # Short replies ("Sure!") carry no topic of their own: each memory is smoothed with its neighbours.
    padded = np.concatenate([vectors[:1], vectors, vectors[-1:]])
    sums = padded[:-2] * 0.5 + padded[1:-1] + padded[2:] * 0.5
    sizes = np.ones(count)
    starts = np.arange(count)
    costs = _ward(sums[:-1], sizes[:-1], sums[1:], sizes[1:])
    for left in range(count, wanted, -1):
        merged = int(costs[: left - 1].argmin())
        sums[merged] += sums[merged + 1]
        sizes[merged] += sizes[merged + 1]
        for array in (sums, sizes, starts):
            array[merged + 1 : left - 1] = array[merged + 2 : left]
        costs[merged : left - 2] = costs[merged + 1 : left - 1]
        near = slice(max(merged - 1, 0), min(merged + 1, left - 2))
        after = slice(near.start + 1, near.stop + 1)
        costs[near] = _ward(sums[near], sizes[near], sums[after], sizes[after])
    segments = np.zeros(count, dtype=np.int64)
    segments[starts[1:wanted]] = 1
    return np.cumsum(segments)


def _ward(
    sums: NDArray[np.float64], sizes: NDArray[np.float64], others: NDArray[np.float64], counts: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return what merging each cluster with the other one adds to the variance within, shape (k,).

    `sums`, shape (k, dim), are the sums of each cluster's vectors, `sizes`, shape (k,), their number.
    """
    import numpy as np

    difference = sums / sizes[:, None] - others / counts[:, None]
    return np.asarray(sizes * counts / (sizes + counts) * np.einsum("kd,kd->k", difference, difference))


def _join(vectors: NDArray[np.float64], segments: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return topic codes, shape (n,): segments whose mean vectors are close become one topic."""
    import numpy as np
    from scipy.cluster.hierarchy import linkage

    count = int(segments.max()) + 1 if len(segments) else 0
    if count < 2:
        return segments
    centroids = np.zeros((count, vectors.shape[1]))
    np.add.at(centroids, segments, vectors)
    lengths = np.linalg.norm(centroids, axis=1)
    # Equal texts have zero vectors once centred, which have no cosine: such segments get one common direction.
    centroids[lengths < 1e-6] = np.eye(1, vectors.shape[1])
    centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
    return _cut(linkage(centroids, method="average", metric="cosine"))[segments]


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
    return np.unique(np.asarray(parents[:leaves]), return_inverse=True)[1]
