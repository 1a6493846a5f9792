"""One owner's examples: each positive with negatives by the ratio of the tiers, sampled from the nearest ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hins_memory.mining.negatives import pool as text_pool
from hins_memory.mining.negatives.filters import Pair, Pairs, allowed_negatives
from hins_memory.mining.negatives.pool import PartialExample, owner_rng
from hins_memory.mining.negatives.ratio import TierAllocator
from hins_memory.mining.negatives.tiers import PAPER_TIERS, tier_masks
from hins_memory.mining.owner.neighbourhood import NEAREST, QUERIES, candidate_rows, conversation_window, positions_in
from hins_memory.mining.owner.owner import OwnerMemories
from hins_memory.mining.positives.evidence import QueryEvidence
from hins_memory.mining.settings import TOP_K, MineSettings
from hins_memory.types import Negative, Ratio, Scope, Tier, TieredExample

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["ExampleBuilder", "count_ranked", "near_rows"]

# Scores of queries with memories are computed in parts of at most this many.
_CELLS = 1_000_000
# A tier with a smaller share of the memories than one in this many: only its own memories are sorted.
_SPARSE = 8
# The rows near to all queries may take this share of the budget before they are searched for twice.
_NEAR_SHARE = 0.125
_ORDER = (Tier.HARD, Tier.MEDIUM, Tier.EASY)


def near_rows(owner: OwnerMemories, vectors: NDArray[np.float32], settings: MineSettings) -> NDArray[np.int32] | None:
    """Return the rows near to each query of a very large owner, best first, shape (queries, `NEAREST`).

    Args:
        owner: the owner's memories.
        vectors: the queries' vectors, shape (queries, dim).
        settings: `memory_budget` says how much may be held.

    Returns:
        The rows; None for an owner that is compared in full, and where they would take too much memory.
    """
    import numpy as np

    if owner.neighbours is None or len(vectors) * NEAREST * 4 > settings.memory_budget * _NEAR_SHARE:
        return None
    found = np.empty((len(vectors), NEAREST), dtype=np.int32)
    for start in range(0, len(vectors), QUERIES):
        part = slice(start, start + QUERIES)
        found[part] = owner.neighbours.nearest(vectors[part].astype(np.float32), NEAREST)
    return found


def count_ranked(
    owner: OwnerMemories,
    evidence: Sequence[QueryEvidence],
    vectors: NDArray[np.float32],
    near: NDArray[np.int32] | None = None,
) -> Counter[Tier]:
    """Count the tiers of what the encoder ranks in its top k for each real query, relative to its best positive.

    Args:
        owner: the owner's memories.
        evidence: the queries; those with positives count.
        vectors: the queries' vectors, shape (len(evidence), dim).
        near: what `near_rows` returned.
    """
    import numpy as np

    counts: Counter[Tier] = Counter()
    asked = [place for place, one in enumerate(evidence) if one.positives]
    step = QUERIES if owner.neighbours else max(1, _CELLS // max(1, len(owner.texts)))
    for start in range(0, len(asked), step):
        part = asked[start : start + step]
        if near is None:
            ranked = _ranked(owner, vectors[part].astype(np.float32))
        else:
            ranked = near[part, :TOP_K].astype(np.int64)
        surest = [max(evidence[place].positives.values(), key=lambda one: one.confidence) for place in part]
        best = [
            next(row for row, positive in evidence[place].positives.items() if positive is sure)
            for place, sure in zip(part, surest, strict=True)
        ]
        others = ranked >= 0
        for number, place in enumerate(part):
            others[number] &= ~np.isin(ranked[number], list(evidence[place].positives))
        for tier, mask in tier_masks(owner, np.asarray(best, dtype=np.int64), ranked).items():
            counts[tier] += int((mask & others).sum())
    return counts


def _ranked(owner: OwnerMemories, vectors: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the rows that the encoder ranks highest, shape (queries, up to `TOP_K`), in any order."""
    import numpy as np

    if owner.neighbours:
        return owner.neighbours.nearest(vectors, TOP_K)
    scores = vectors @ owner.vectors.T
    if scores.shape[1] <= TOP_K:
        return np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
    return np.asarray(np.argpartition(-scores, TOP_K - 1, axis=1)[:, :TOP_K], dtype=np.int64)


@dataclass(frozen=True, slots=True)
class _Candidates:
    """The nearest allowed rows of one tier for each pair, shape (pairs, k), best first, with how many are real."""

    rows: NDArray[np.int64]
    counts: NDArray[np.int64]


class ExampleBuilder:
    """Builds the examples of one owner.

    Args:
        scope: the owner.
        owner: the owner's memories.
        ratio: the shares of the tiers among the negatives.
        settings: the miner's settings.
        outside: whether easy negatives that the owner does not have can come from outside (`pool_negatives`).
    """

    def __init__(
        self,
        scope: Scope,
        owner: OwnerMemories,
        ratio: Ratio,
        settings: MineSettings,
        outside: bool,
    ) -> None:
        import numpy as np

        self._scope = scope
        self._owner = owner
        self._settings = settings
        self._outside = outside
        self._rng = owner_rng(scope, settings.seed)
        self._allocator = TierAllocator(ratio, settings.negatives)
        self._repeated = len(np.unique(owner.key_codes)) < len(owner.key_codes)

    def examples(
        self,
        evidence: Sequence[QueryEvidence],
        vectors: NDArray[np.float32],
        near: NDArray[np.int32] | None = None,
    ) -> Iterator[PartialExample]:
        """Yield an example for every positive, in order of the queries.

        Args:
            evidence: the queries with their positives.
            vectors: the queries' vectors, shape (len(evidence), dim).
            near: what `near_rows` returned.
        """
        import numpy as np

        step = QUERIES if self._owner.neighbours else max(1, _CELLS // max(1, len(self._owner.texts)))
        for start in range(0, len(evidence), step):
            part = evidence[start : start + step]
            queries = vectors[start : start + step].astype(np.float32)
            pairs = [(place, Pair(row, one)) for place, one in enumerate(part) for row in one.positives]
            places = [place for place, _ in pairs]
            # Random numbers for each pair, drawn here, so that the samples do not depend on the size of a block.
            draws = self._rng.random((len(pairs), len(_ORDER), text_pool.NEAR_POOL))
            if self._owner.neighbours is None:
                # Queries with several positives make the block larger, so it is split again.
                for at in range(0, len(pairs), step):
                    chosen = [pair for _, pair in pairs[at : at + step]]
                    yield from self._block(self._owner, chosen, queries[places[at : at + step]], draws[at : at + step])
                continue
            found = self._owner.neighbours.nearest(queries, NEAREST) if near is None else near[start : start + step]
            for number, (place, pair) in enumerate(pairs):
                view, local_pair = self._neighbourhood(pair, found[place])
                yield from self._block(view, [local_pair], queries[place : place + 1], draws[number : number + 1])

    def _neighbourhood(self, pair: Pair, near: NDArray[Any]) -> tuple[OwnerMemories, Pair]:
        """Return the part of a very large owner that a pair is compared with, and the pair with its rows there."""
        evidence = pair.evidence
        rows = candidate_rows(near, conversation_window(self._owner, pair.row), evidence.positives, evidence.rejected)
        local_pair = QueryEvidence(
            evidence.query,
            dict(zip(positions_in(rows, evidence.positives), evidence.positives.values(), strict=True)),
            set(positions_in(rows, evidence.rejected)),
            set(positions_in(rows, evidence.plausible)),
            evidence.answered,
        )
        return self._owner.take(rows), Pair(positions_in(rows, [pair.row])[0], local_pair)

    def _block(
        self, owner: OwnerMemories, pairs: list[Pair], queries: NDArray[np.float32], draws: NDArray[np.float64]
    ) -> Iterator[PartialExample]:
        import numpy as np

        rows = np.asarray([pair.row for pair in pairs], dtype=np.int64)
        # (pairs, n) each
        block = Pairs(pairs, queries @ owner.vectors.T, owner.vectors[rows] @ owner.vectors.T)
        allowed = allowed_negatives(owner, block, self._settings)
        key = block.scores.copy()
        for place, pair in enumerate(pairs):
            # Rejected memories come first.
            key[place, list(pair.evidence.rejected)] += 4.0
        count = 4 * (text_pool.NEAR_POOL + self._settings.negatives)
        masks = tier_masks(owner, rows)
        nearest = {tier: _nearest(key, masks[tier] & allowed, count) for tier in _ORDER}
        for place, pair in enumerate(pairs):
            candidates = {}
            for tier, found in nearest.items():
                tier_rows = found.rows[place, : found.counts[place]].tolist()
                candidates[tier] = _distinct(owner, tier_rows) if self._repeated else tier_rows
            yield self._partial_example(owner, pair, candidates, block.scores[place], draws[place], queries[place])

    def _partial_example(
        self,
        owner: OwnerMemories,
        pair: Pair,
        candidates: dict[Tier, list[int]],
        scores: NDArray[np.float32],
        draws: NDArray[np.float64],
        query: NDArray[np.float32],
    ) -> PartialExample:
        settings = self._settings
        available = {tier: len(candidates[tier]) for tier in PAPER_TIERS}
        if self._outside:
            # Easy negatives that the owner's own conversations do not have come from outside.
            available[Tier.EASY] = max(available[Tier.EASY], settings.negatives)
        dealt = self._allocator.deal(available)
        negatives: list[Negative] = []
        for number, tier in enumerate(_ORDER):
            if not dealt[tier]:
                continue
            pool = candidates[tier][: max(text_pool.NEAR_POOL, dealt[tier])]
            for row in _sample(pool, dealt[tier], draws[number]):
                negatives.append(Negative(owner.memories[row].id, owner.texts[row], tier, float(scores[row])))
        conversation = owner.memories[pair.row].conversation
        positive = pair.evidence.positives[pair.row]
        example = TieredExample(self._scope, conversation, positive, tuple(negatives))
        missing = sum(dealt.values()) - len(negatives)
        return PartialExample(example, missing, query, owner.vectors[pair.row]) if missing else PartialExample(example)


def _nearest(keys: NDArray[np.float32], real: NDArray[np.bool_], count: int) -> _Candidates:
    """Return the columns of the highest keys of each row, best first, at most `count`; only `real` ones count."""
    import numpy as np

    counts = real.sum(axis=1)
    most = int(counts.max(initial=0))
    if most * _SPARSE < keys.shape[1]:
        rows, columns = np.nonzero(real)
        places = np.arange(len(columns)) - np.repeat(np.cumsum(counts) - counts, counts)
        part = np.zeros((len(keys), most), dtype=np.int64)
        found = np.full(part.shape, -np.inf, dtype=keys.dtype)
        part[rows, places], found[rows, places] = columns, keys[rows, columns]
    else:
        found = np.where(real, keys, -np.inf)
        part = np.argpartition(-found, min(count, keys.shape[1]) - 1, axis=1)[:, :count]
        found = np.take_along_axis(found, part, axis=1)
    order = np.argsort(-found, axis=1, kind="stable")[:, :count]
    return _Candidates(np.take_along_axis(part, order, axis=1), np.minimum(counts, count))


def _distinct(owner: OwnerMemories, rows: list[int]) -> list[int]:
    """Return the rows in order, each text once."""
    return list({owner.keys[row]: row for row in reversed(rows)}.values())[::-1]


def _sample(pool: list[int], count: int, draws: NDArray[np.float64]) -> list[int]:
    """Return up to `count` entries of the pool, in the pool's order, by random numbers, one an entry."""
    if count >= len(pool):
        return pool
    return [pool[place] for place in sorted(draws[: len(pool)].argsort()[:count].tolist())]
