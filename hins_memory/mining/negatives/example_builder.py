"""One owner's examples: each positive with negatives by the ratio of the tiers, sampled from the nearest ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

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

__all__ = ["ExampleBuilder", "count_ranked"]

# Scores of queries with memories are computed in parts of at most this many.
_CELLS = 1_000_000
_ORDER = (Tier.HARD, Tier.MEDIUM, Tier.EASY)


def count_ranked(
    owner: OwnerMemories, evidence: Sequence[QueryEvidence], vectors: NDArray[np.float32]
) -> Counter[Tier]:
    """Count the tiers of what the encoder ranks in its top k for each real query, relative to its best positive.

    Args:
        owner: the owner's memories.
        evidence: the queries; those with positives count.
        vectors: the queries' vectors, shape (len(evidence), dim).
    """
    import numpy as np

    counts: Counter[Tier] = Counter()
    asked = [place for place, one in enumerate(evidence) if one.positives]
    step = QUERIES if owner.neighbours else max(1, _CELLS // max(1, len(owner.texts)))
    for start in range(0, len(asked), step):
        part = asked[start : start + step]
        ranked = _ranked(owner, vectors[part].astype(np.float32))
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
        self._scope = scope
        self._owner = owner
        self._settings = settings
        self._outside = outside
        self._rng = owner_rng(scope, settings.seed)
        self._allocator = TierAllocator(ratio, settings.negatives)

    def examples(self, evidence: Sequence[QueryEvidence], vectors: NDArray[np.float32]) -> Iterator[PartialExample]:
        """Yield an example for every positive, in order of the queries.

        Args:
            evidence: the queries with their positives.
            vectors: the queries' vectors, shape (len(evidence), dim).
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
            near = self._owner.neighbours.nearest(queries, NEAREST)
            for number, (place, pair) in enumerate(pairs):
                view, local_pair = self._neighbourhood(pair, near[place])
                yield from self._block(view, [local_pair], queries[place : place + 1], draws[number : number + 1])

    def _neighbourhood(self, pair: Pair, near: NDArray[np.int64]) -> tuple[OwnerMemories, Pair]:
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
        nearest = {tier: _nearest(np.where(masks[tier] & allowed, key, -np.inf), count) for tier in _ORDER}
        repeated = len(np.unique(owner.key_codes)) < len(owner.key_codes)
        for place, pair in enumerate(pairs):
            candidates = {}
            for tier, found in nearest.items():
                tier_rows = found.rows[place, : found.counts[place]].tolist()
                candidates[tier] = _distinct(owner, tier_rows) if repeated else tier_rows
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


def _nearest(keys: NDArray[np.float32], count: int) -> _Candidates:
    """Return the columns of the highest keys of each row, best first; a key of minus infinity is not a candidate."""
    import numpy as np

    if keys.shape[1] > count:
        part = np.argpartition(-keys, count - 1, axis=1)[:, :count]
        keys = np.take_along_axis(keys, part, axis=1)
        order = np.argsort(-keys, axis=1, kind="stable")
        rows = np.take_along_axis(part, order, axis=1)
    else:
        rows = np.argsort(-keys, axis=1, kind="stable")
    return _Candidates(rows, np.isfinite(keys).sum(axis=1))


def _distinct(owner: OwnerMemories, rows: list[int]) -> list[int]:
    """Return the rows in order, each text once."""
    return list({owner.keys[row]: row for row in reversed(rows)}.values())[::-1]


def _sample(pool: list[int], count: int, draws: NDArray[np.float64]) -> list[int]:
    """Return up to `count` entries of the pool, in the pool's order, by random numbers, one an entry."""
    if count >= len(pool):
        return pool
    return [pool[place] for place in sorted(draws[: len(pool)].argsort()[:count].tolist())]
