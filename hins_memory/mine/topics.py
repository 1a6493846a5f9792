"""Topics of a conversation: contiguous segments by embedding, joined across sessions; a framework's label wins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["assign_topics"]

# On average so many memories make a segment; people rarely stay longer on one point in a chat.
_SEGMENT_LENGTH = 4
# Segments whose average cosine distance is below this are one topic that came up again.
_JOIN_DISTANCE = 0.65
# Joining compares all pairs of segments: longer conversations are joined block by block.
_BLOCK = 12_000


def assign_topics(vectors: NDArray[np.float32], labels: Sequence[str] | None = None) -> NDArray[np.int64]:
    """Give each memory of one conversation a topic.

    Args:
        vectors: unit vectors of the memories in order of time, shape (n, dim).
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
    for start in range(0, len(free), _BLOCK):
        block = free[start : start + _BLOCK]
        centred = _centred(vectors[block])
        topics[block] = _join(centred, _segment(centred)) + offset
        offset = int(topics[block].max()) + 1
    return topics


def _centred(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return unit vectors, shape (n, dim), without what all of a conversation share: names, tone, register."""
    import numpy as np

    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    return np.asarray(centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-9))


def _segment(vectors: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return contiguous segment codes, shape (n,): Ward clustering in which only neighbours in time may merge."""
    import numpy as np
    from sklearn.cluster import AgglomerativeClustering
    from sklearn.feature_extraction.image import grid_to_graph

    count = len(vectors)
    wanted = round(count / _SEGMENT_LENGTH)
    if wanted < 2:
        return np.zeros(count, dtype=np.int64)
    chain = grid_to_graph(count, 1)
    # Short replies ("Sure!") carry no topic of their own: each memory is smoothed with its neighbours.
    padded = np.concatenate([vectors[:1], vectors, vectors[-1:]])
    smooth = padded[:-2] * 0.5 + padded[1:-1] + padded[2:] * 0.5
    clustering = AgglomerativeClustering(n_clusters=wanted, linkage="ward", connectivity=chain)
    return np.asarray(clustering.fit_predict(smooth), dtype=np.int64)


def _join(vectors: NDArray[np.float64], segments: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return topic codes, shape (n,): segments whose mean vectors are close become one topic."""
    import numpy as np
    from sklearn.cluster import AgglomerativeClustering

    count = int(segments.max()) + 1 if len(segments) else 0
    if count < 2:
        return segments
    centroids = np.zeros((count, vectors.shape[1]))
    np.add.at(centroids, segments, vectors)
    lengths = np.linalg.norm(centroids, axis=1)
    # Equal texts leave nothing once centred, and nothing has no cosine: such segments are put on one direction.
    centroids[lengths < 1e-6] = np.eye(1, vectors.shape[1])
    centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
    clustering = AgglomerativeClustering(
        n_clusters=None, distance_threshold=_JOIN_DISTANCE, metric="cosine", linkage="average"
    )
    return np.asarray(clustering.fit_predict(centroids), dtype=np.int64)[segments]
