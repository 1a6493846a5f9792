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
    for part, starts in _parts(codes[free]):
        rows = free[part]
        centred = _centred(vectors[rows], starts)
        topics[rows] = _join(centred, _segment(centred, starts), starts) + offset
        offset = int(topics[rows].max()) + 1
    return topics


def _parts(conversations: NDArray[np.int64]) -> Iterator[tuple[slice, NDArray[np.int64]]]:
    """Yield the rows of windows that are done together, and where in them each window begins."""
    import numpy as np

    edges = [0, *(np.flatnonzero(np.diff(conversations)) + 1).tolist(), len(conversations)]
    windows = [at for start, end in itertools.pairwise(edges) for at in range(start, end, WINDOW)]
    part: list[int] = []
    for start, end in itertools.pairwise([*windows, len(conversations)]):
        if part and end - part[0] > _TOGETHER:
            yield slice(part[0], start), np.asarray(part) - part[0]
            part = []
        part.append(start)
    if part:
        yield slice(part[0], len(conversations)), np.asarray(part) - part[0]


def _centred(vectors: NDArray[np.float32], starts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return unit vectors, shape (n, dim), after subtracting the conversation's mean: names, tone, register."""
    import numpy as np

    wide = vectors.astype(np.float64)
    sizes = np.diff(starts, append=len(wide))
    wide -= np.repeat(np.add.reduceat(wide, starts) / sizes[:, None], sizes, axis=0)
    wide /= np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-9)
    return wide


def _segment(vectors: NDArray[np.float64], starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return codes of segments, shape (n,): Ward clustering in which only neighbours in time may merge.

    The same clusters as scikit-learn's AgglomerativeClustering with a chain as its connectivity (a test compares
    them), at a small part of its cost for the about twenty memories of most conversations.
    """
    import numpy as np

    edges = [*starts.tolist(), len(vectors)]
    # Short replies ("Sure!") carry no topic of their own: each memory is smoothed with its neighbours.
    before, after = np.arange(-1, len(vectors) - 1), np.arange(1, len(vectors) + 1)
    before[starts] += 1
    after[np.asarray(edges[1:]) - 1] -= 1
    smooth = vectors[before] * 0.5 + vectors + vectors[after] * 0.5
    steps = np.diff(smooth, axis=0)
    costs = (0.5 * np.einsum("kd,kd->k", steps, steps)).tolist()
    begins = np.zeros(len(vectors), dtype=np.int64)
    for start, end in itertools.pairwise(edges):
        wanted = max(1, round((end - start) / _SEGMENT_LENGTH))
        begins[_merged(smooth[start:end], costs[start : end - 1], wanted) + start] = 1
    return np.cumsum(begins) - 1


def _merged(vectors: NDArray[np.float64], costs: list[float], wanted: int) -> NDArray[np.int64]:
    """Merge neighbours, the cheapest first, and return where the wanted number of segments begin.

    Args:
        vectors: one for each memory, shape (n, dim).
        costs: what merging each with the next one adds to the variance within; changed.
        wanted: how many segments are left.
    """
    import numpy as np

    sums, means = list(vectors), list(vectors)
    sizes, begins = [1] * len(sums), list(range(len(sums)))
    while len(sums) > wanted:
        place = costs.index(min(costs))
        del costs[place], begins[place + 1]
        sums[place] = sums[place] + sums.pop(place + 1)
        sizes[place] += sizes.pop(place + 1)
        means[place : place + 2] = [sums[place] / sizes[place]]
        for left in range(max(place - 1, 0), min(place + 1, len(costs))):
            step = means[left] - means[left + 1]
            both = sizes[left] + sizes[left + 1]
            costs[left] = sizes[left] * sizes[left + 1] / both * float(step.dot(step))
    return np.asarray(begins)


def _join(vectors: NDArray[np.float64], segments: NDArray[np.int64], starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return topic codes, shape (n,): segments of a window whose mean vectors are close become one topic."""
    import numpy as np
    from scipy.cluster.hierarchy import linkage
    from scipy.spatial.distance import pdist

    begins = np.searchsorted(segments, np.arange(segments[-1] + 1))
    if len(begins) == len(starts):
        return segments
    centroids = np.add.reduceat(vectors, begins)
    lengths = np.linalg.norm(centroids, axis=1)
    # Equal texts have zero vectors once centred, which have no cosine: such segments get one common direction.
    centroids[lengths < 1e-6] = np.eye(1, vectors.shape[1])
    centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
    distances = pdist(centroids, "cosine")
    windows = np.searchsorted(starts, begins, side="right")
    one, other = np.triu_indices(len(begins), 1)
    distances[windows[one] != windows[other]] = _APART
    return _cut(linkage(distances, method="average"))[segments]


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
