"""One owner's examples: each positive with negatives by the ratio of the tiers, sampled from the nearest ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hins_memory.mining.negatives import near as near_memories
from hins_memory.mining.negatives import pool as text_pool
from hins_memory.mining.negatives.filters import Pair, Pairs, allowed_negatives
from hins_memory.mining.negatives.near import Near
from hins_memory.mining.negatives.pool import PartialExample, owner_rng
from hins_memory.mining.negatives.ratio import TierAllocator
from hins_memory.mining.negatives.tiers import tier_masks
from hins_memory.mining.owner.neighbourhood import NEAREST, conversation_windows
from hins_memory.mining.owner.owner import OwnerMemories
from hins_memory.mining.owner.vectors import rows_of
from hins_memory.mining.positives.evidence import QueryEvidence
from hins_memory.mining.settings import TOP_K, MineSettings
from hins_memory.types import Negative, Ratio, Scope, Tier, TieredExample

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["ExampleBuilder", "count_ranked", "near_rows"]

# A tier with a smaller share of the memories than one in this many: only its own memories are sorted.
_SPARSE = 8
# The rows near to all queries may take this share of the budget before they are searched for twice.
_NEAR_SHARE = 0.125
_ORDER = (Tier.HARD, Tier.MEDIUM, Tier.EASY)


def near_rows(
    owner: OwnerMemories, evidence: Sequence[QueryEvidence], vectors: NDArray[np.float32], settings: MineSettings
) -> Near | None:
    """Return the memories nearest to each query of an owner with many.

    Args:
        owner: the owner's memories.
        evidence: the queries.
        vectors: the queries' vectors, shape (queries, dim).
        settings: `memory_budget` says how much may be held.

    Returns:
        The memories; None for an owner that is compared in full, and where they would take too much memory.
    """
    size = len(vectors) * (TOP_K + near_memories.SHORT + 1) * 4
    if not near_memories.has_many(owner) or size > settings.memory_budget * _NEAR_SHARE:
        return None
    return near_memories.nearest(owner, evidence, vectors, settings)


def count_ranked(
    owner: OwnerMemories,
    evidence: Sequence[QueryEvidence],
    vectors: NDArray[np.float32],
    near: Near | None = None,
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
    step = near_memories.queries_at_a_time(owner)
    for start in range(0, len(asked), step):
        part = asked[start : start + step]
        ranked = (
            _ranked(owner, vectors[part].astype(np.float32)) if near is None else near.ranked[part].astype(np.int64)
        )
        positives = [evidence[place].positives for place in part]
        best = np.asarray([max(one, key=lambda row: one[row].confidence) for one in positives], dtype=np.int64)
        others = (ranked >= 0) & (ranked != best[:, None])
        for number, one in enumerate(positives):
            if len(one) > 1:
                others[number] &= ~np.isin(ranked[number], list(one))
        for tier, mask in tier_masks(owner, best, ranked).items():
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


# For each tier of `_ORDER` the memories that one pair's negatives are sampled from, best first: rows and cosines.
_Choice = Sequence[tuple[list[int], list[float]]]


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
        self._repeated = len(set(owner.keys)) < len(owner.keys)
        # As many of a tier as a pair's negatives are sampled from.
        self._wanted = max(text_pool.NEAR_POOL, settings.negatives)

    def examples(
        self,
        evidence: Sequence[QueryEvidence],
        vectors: NDArray[np.float32],
        near: Near | None = None,
    ) -> Iterator[PartialExample]:
        """Yield an example for every positive, in order of the queries.

        Args:
            evidence: the queries with their positives.
            vectors: the queries' vectors, shape (len(evidence), dim).
            near: what `near_rows` returned.
        """
        import numpy as np

        step = near_memories.queries_at_a_time(self._owner)
        for start in range(0, len(evidence), step):
            block = slice(start, start + step)
            pairs = [(place, Pair(row, one)) for place, one in enumerate(evidence[block]) for row in one.positives]
            places = [place for place, _ in pairs]
            queries = vectors[block].astype(np.float32)[places]
            # Random numbers for each pair, drawn here, so that the samples do not depend on the size of a block.
            draws = self._rng.random((len(pairs), len(_ORDER), text_pool.NEAR_POOL)).tolist()
            found = None
            if near_memories.has_many(self._owner):
                here = near.at(block) if near else self._near(evidence[block], vectors[block])
                found = here.at(places)
            choices = self._choices([pair for _, pair in pairs], queries, found)
            for number, ((_, pair), choice) in enumerate(zip(pairs, choices, strict=True)):
                yield self._partial_example(pair, choice, draws[number], queries[number])

    def _near(self, evidence: Sequence[QueryEvidence], vectors: NDArray[np.float32]) -> Near:
        return near_memories.nearest(self._owner, evidence, vectors, self._settings)

    def _choices(self, pairs: Sequence[Pair], queries: NDArray[np.float32], near: Near | None) -> Iterator[_Choice]:
        """Yield what each pair's negatives are sampled from.

        Args:
            pairs: the pairs.
            queries: the vectors of their queries, shape (pairs, dim).
            near: what is near to each; None compares with all memories.
        """
        import numpy as np

        owner = self._owner
        if near is None:
            step = near_memories.queries_at_a_time(owner)
            # Queries with several positives make the block larger, so it is split again.
            for at in range(0, len(pairs), step):
                part = slice(at, at + step)
                yield from self._block(near_memories.compare(owner, pairs[part], queries[part], None))[0]
            return
        # A tier that reaches beyond what of the conversation is compared has no bound.
        whole = conversation_windows(owner, np.asarray([pair.row for pair in pairs], dtype=np.int64))[2]
        short = np.flatnonzero(whole).tolist()
        known = dict(zip(short, self._among(pairs, queries, short, near.rows[short], near.bounds), strict=True))
        unsure = [place for place in range(len(pairs)) if known.get(place) is None]
        if unsure and owner.neighbours:
            more = owner.neighbours.nearest(queries[unsure], NEAREST)
            known |= zip(unsure, self._among(pairs, queries, unsure, more, None), strict=True)
        elif unsure:
            known |= zip(unsure, self._choices([pairs[place] for place in unsure], queries[unsure], None), strict=True)
        for place in range(len(pairs)):
            choice = known[place]
            assert choice is not None
            yield choice

    def _among(
        self,
        pairs: Sequence[Pair],
        queries: NDArray[np.float32],
        places: Sequence[int],
        near: NDArray[np.integer],
        bounds: NDArray[np.float32] | None,
    ) -> Iterator[_Choice | None]:
        """Yield what some pairs' negatives are sampled from, among the rows near to each, its conversation and others.

        Args:
            pairs: all pairs.
            queries: the vectors of their queries, shape (pairs, dim).
            places: which pairs.
            near: the rows near to each of these, shape (len(places), any).
            bounds: what no other row's cosine is above, for all pairs; None takes what there is.

        Yields:
            The choice; None where other rows might belong into it.
        """
        import numpy as np

        chosen = [pairs[place] for place in places]
        for part in near_memories.parts(self._owner, chosen, near.shape[1]):
            rows = near_memories.compared_rows(self._owner, chosen[part], near[part])
            block = near_memories.compare(self._owner, chosen[part], queries[places[part]], rows)
            choices, least = self._block(block)
            if bounds is None:
                yield from choices
                continue
            least_other = bounds[places[part]]
            sure = ((least > least_other) | np.isneginf(least_other)).tolist()
            yield from (choice if enough else None for choice, enough in zip(choices, sure, strict=True))

    def _block(self, block: Pairs) -> tuple[list[_Choice], NDArray[np.float32]]:
        """Return what the negatives of pairs are sampled from, and the last easy one's cosine, shape (pairs,)."""
        import numpy as np

        owner, wanted = self._owner, self._wanted
        rows = np.asarray([pair.row for pair in block.pairs], dtype=np.int64)
        key = block.scores.copy()
        for place, pair in enumerate(block.pairs):
            if pair.evidence.rejected:
                # Rejected memories come first.
                key[place, block.columns(place, pair.evidence.rejected)] += 4.0
        allowed = allowed_negatives(owner, block, self._settings)
        masks = tier_masks(owner, rows, block.rows)
        # Of equal texts one is kept, so that more are looked at where there are any.
        count = 4 * (text_pool.NEAR_POOL + self._settings.negatives) if self._repeated else wanted
        tiers: list[list[tuple[list[int], list[float]]]] = []
        for tier in _ORDER:
            found = _nearest(key, masks[tier] & allowed, count)
            places = found.rows if block.rows is None else np.take_along_axis(block.rows, found.rows, axis=1)
            cosines = np.take_along_axis(block.scores, found.rows, axis=1).tolist()
            each = zip(places.tolist(), cosines, found.counts.tolist(), strict=True)
            chosen = [(its[:real], scores[:real]) for its, scores, real in each]
            tiers.append([_distinct(owner, *one, wanted) for one in chosen] if self._repeated else chosen)
        easy = tiers[_ORDER.index(Tier.EASY)]
        least = [scores[-1] if len(scores) == wanted else -np.inf for _, scores in easy]
        return list(zip(*tiers, strict=True)), np.asarray(least, dtype=np.float32)

    def _partial_example(
        self, pair: Pair, choice: _Choice, draws: list[list[float]], query: NDArray[np.float32]
    ) -> PartialExample:
        settings, owner = self._settings, self._owner
        memories, texts = owner.memories, owner.texts
        available = {tier: len(rows) for tier, (rows, _) in zip(_ORDER, choice, strict=True)}
        if self._outside:
            # Easy negatives that the owner's own conversations do not have come from outside.
            available[Tier.EASY] = max(available[Tier.EASY], settings.negatives)
        dealt = self._allocator.deal(available)
        negatives: list[Negative] = []
        for number, tier in enumerate(_ORDER):
            if not dealt[tier]:
                continue
            rows, scores = choice[number]
            most = min(len(rows), max(text_pool.NEAR_POOL, dealt[tier]))
            for place in _sample(most, dealt[tier], draws[number]):
                row = rows[place]
                negatives.append(Negative(memories[row].id, texts[row], tier, scores[place]))
        conversation = memories[pair.row].conversation
        positive = pair.evidence.positives[pair.row]
        example = TieredExample(self._scope, conversation, positive, tuple(negatives))
        missing = sum(dealt.values()) - len(negatives)
        if not missing:
            return PartialExample(example)
        import numpy as np

        return PartialExample(example, missing, query, rows_of(owner.vectors, np.asarray([pair.row]))[0])


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


def _distinct(owner: OwnerMemories, rows: list[int], scores: list[float], most: int) -> tuple[list[int], list[float]]:
    """Return the first rows, at most that many, each text once, with their scores."""
    first: dict[str, tuple[int, float]] = {}
    for row, score in zip(rows, scores, strict=True):
        first.setdefault(owner.keys[row], (row, score))
    chosen = list(first.values())[:most]
    return [row for row, _ in chosen], [score for _, score in chosen]


def _sample(size: int, count: int, draws: list[float]) -> list[int] | range:
    """Return up to `count` of the places below `size`, in order, by random numbers, one a place."""
    if count >= size:
        return range(size)
    if count == 1:
        return [min(range(size), key=draws.__getitem__)]
    return sorted(sorted(range(size), key=draws.__getitem__)[:count])
