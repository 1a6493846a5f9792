"""Which memories of an owner with many each query is compared with: the nearest ones, and its positive's conversation.

What is sampled are a tier's few nearest memories that the guard allows, so that a short list of these mostly has them.
It carries a bound: no other one's cosine with the query is above it. Where fewer than wanted lie above the bound, the
query is compared again, with more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hins_memory.mining.negatives.filters import Pair, Pairs, guard_limit, is_guarded
from hins_memory.mining.owner.neighbourhood import NEAREST, QUERIES, conversation_windows
from hins_memory.mining.owner.owner import OwnerMemories
from hins_memory.mining.owner.vectors import best_columns, rows_of
from hins_memory.mining.positives.evidence import QueryEvidence
from hins_memory.mining.settings import TOP_K, MineSettings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hins_memory.mining.owner.vectors import RowsOfColumns

__all__ = ["SHORT", "Near", "compare", "compared_rows", "has_many", "nearest", "parts", "queries_at_a_time"]

#: A query is first compared with this many nearest memories.
SHORT = 32
# An owner with at most this many memories is compared in full.
_FULL = 1_000
# Scores of queries with memories are computed in parts of at most this many.
_CELLS = 1_000_000
# Where only the nearest are kept of them, in parts of at most this many.
_SEARCHED = 2_000_000
# Vectors are gathered for pairs in parts of at most this many numbers.
_NUMBERS = 2_000_000
# The same cosine, computed in other parts, may differ by this much.
_ROUNDING = 1e-5


@dataclass(frozen=True, slots=True)
class Near:
    """The memories nearest to each of some queries, best first; -1 where there are no more.

    Attributes:
        ranked: the nearest of all, shape (queries, `TOP_K`).
        rows: the nearest of those that the guard allows, shape (queries, `SHORT`).
        bounds: what the cosine of no other memory that the guard allows is above, shape (queries,). Of a very large
            owner, only its nearest memories count (`NEAREST`).
    """

    ranked: NDArray[np.int32]
    rows: NDArray[np.int32]
    bounds: NDArray[np.float32]

    def at(self, places: Sequence[int] | slice) -> Near:
        """Return those of some of the queries."""
        return Near(self.ranked[places], self.rows[places], self.bounds[places])


def has_many(owner: OwnerMemories) -> bool:
    """Say whether queries are first compared with a short list of an owner's memories."""
    return owner.neighbours is not None or len(owner.texts) > _FULL


def queries_at_a_time(owner: OwnerMemories) -> int:
    """Return how many queries are compared with an owner's memories at a time."""
    return QUERIES if owner.neighbours else max(1, _CELLS // max(1, len(owner.texts)))


def nearest(
    owner: OwnerMemories, evidence: Sequence[QueryEvidence], vectors: NDArray[np.float32], settings: MineSettings
) -> Near:
    """Return the memories nearest to each query, for an owner that `has_many`.

    Args:
        owner: the owner's memories.
        evidence: the queries.
        vectors: the queries' vectors, shape (queries, dim).
        settings: the miner's; the guard is theirs.
    """
    import numpy as np

    count, every = len(evidence), len(owner.texts)
    found = Near(
        np.full((count, TOP_K), -1, dtype=np.int32),
        np.full((count, SHORT), -1, dtype=np.int32),
        np.full(count, -np.inf, dtype=np.float32),
    )
    most = NEAREST if owner.neighbours else every
    for block, scores, rows in _cosines(owner, vectors):
        ranked = rows(best_columns(scores, TOP_K))
        found.ranked[block, : ranked.shape[1]] = ranked
        limits = _limits(owner, evidence[block], vectors[block], settings)
        above = scores >= limits[:, None]
        left = most - np.count_nonzero(above, axis=1)
        scores[above] = -np.inf
        columns = best_columns(scores, SHORT + 1)
        its = np.take_along_axis(scores, columns, axis=1)
        real = np.isfinite(its) & (np.arange(columns.shape[1]) < left[:, None])
        chosen = np.where(real, rows(columns), -1)
        found.rows[block, : min(SHORT, columns.shape[1])] = chosen[:, :SHORT]
        if columns.shape[1] > SHORT:
            found.bounds[block] = np.where(real[:, SHORT], its[:, SHORT] + _ROUNDING, -np.inf)
    return found


def _cosines(
    owner: OwnerMemories, vectors: NDArray[np.float32]
) -> Iterator[tuple[slice, NDArray[np.float32], RowsOfColumns]]:
    """Yield queries in blocks, with their cosines and what tells the rows of their columns, as `Neighbours.cosines`."""
    if owner.neighbours:
        yield from owner.neighbours.cosines(vectors)
        return
    step = max(1, _SEARCHED // len(owner.texts))
    for start in range(0, len(vectors), step):
        yield slice(start, start + step), vectors[start : start + step] @ owner.vectors.T, lambda columns: columns


def _limits(
    owner: OwnerMemories, evidence: Sequence[QueryEvidence], vectors: NDArray[np.float32], settings: MineSettings
) -> NDArray[np.float32]:
    """Return from which cosine on no memory is a negative of any pair of each query, shape (queries,)."""
    import numpy as np

    limits = np.full(len(evidence), np.inf, dtype=np.float32)
    guarded = [place for place, one in enumerate(evidence) if is_guarded(one, settings)]
    pairs = [(place, row) for place in guarded for row in evidence[place].positives]
    if pairs:
        places, rows = (np.asarray(column, dtype=np.int64) for column in zip(*pairs, strict=True))
        limits[guarded] = -np.inf
        cosines = np.einsum("pd,pd->p", rows_of(vectors, places), rows_of(owner.vectors, rows))
        highest = [guard_limit(cosine, settings.guard) + _ROUNDING for cosine in cosines.tolist()]
        np.maximum.at(limits, places, np.asarray(highest, dtype=np.float32))
    return limits


def parts(owner: OwnerMemories, pairs: Sequence[Pair], near: int) -> Iterator[slice]:
    """Yield the pairs in parts whose vectors can be gathered at a time.

    Args:
        owner: the owner's memories.
        pairs: which.
        near: how many nearest memories each is compared with.
    """
    import numpy as np

    starts, ends, _ = conversation_windows(owner, np.asarray([pair.row for pair in pairs], dtype=np.int64))
    most, start, widest = _NUMBERS // owner.vectors.shape[1], 0, 0
    for place, width in enumerate((ends - starts).tolist()):
        if place > start and (place + 1 - start) * (near + max(widest, width)) > most:
            yield slice(start, place)
            start, widest = place, 0
        widest = max(widest, width)
    if pairs:
        yield slice(start, len(pairs))


def compared_rows(owner: OwnerMemories, pairs: Sequence[Pair], near: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return the rows that each pair is compared with, shape (pairs, k), in ascending order, -1 for none.

    Args:
        owner: the owner's memories.
        pairs: which.
        near: the rows nearest to each pair's query, shape (pairs, any), -1 for none.
    """
    import numpy as np

    starts, ends, _ = conversation_windows(owner, np.asarray([pair.row for pair in pairs], dtype=np.int64))
    window = starts[:, None] + np.arange((ends - starts).max())
    window[window >= ends[:, None]] = -1
    named = [[*pair.evidence.positives, *pair.evidence.rejected] for pair in pairs]
    others = np.full((len(pairs), max(map(len, named))), -1)
    for place, rows in enumerate(named):
        others[place, : len(rows)] = rows
    found = np.sort(np.concatenate([near, window, others], axis=1), axis=1)
    again = found[:, 1:] == found[:, :-1]
    found[:, 1:][again] = -1
    return found


def compare(
    owner: OwnerMemories, pairs: Sequence[Pair], queries: NDArray[np.float32], rows: NDArray[np.int64] | None
) -> Pairs:
    """Return pairs with their cosines.

    Args:
        owner: the owner's memories.
        pairs: which.
        queries: the vector of each pair's query, shape (pairs, dim).
        rows: what `compared_rows` returned; None compares with all memories.
    """
    import numpy as np

    positives = rows_of(owner.vectors, np.asarray([pair.row for pair in pairs], dtype=np.int64))
    if rows is None:
        vectors = owner.vectors
        return Pairs(pairs, queries @ vectors.T, positives @ vectors.T, vectors)
    vectors = rows_of(owner.vectors, rows.ravel()).reshape(*rows.shape, -1)
    cosines = np.moveaxis(vectors @ np.stack([queries, positives], axis=2), 2, 0)
    scores, similarity = np.ascontiguousarray(cosines)
    return Pairs(pairs, scores, similarity, vectors, rows)
