"""One owner's examples: its positives with negatives dealt by the ratio, near ones first, sampled."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hins_memory.mine.filters import allowed_negatives, guard_limit
from hins_memory.mine.owner import OwnerMemories
from hins_memory.mine.positives import QueryEvidence
from hins_memory.mine.ratio import RatioEstimate, TierAllocator, estimate_ratio
from hins_memory.mine.settings import MineSettings
from hins_memory.mine.tiers import tier_masks
from hins_memory.types import Negative, Ratio, Scope, Tier, TieredExample

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hins_memory.encoder import Encoder

__all__ = ["Draft", "TextPool", "count_ranked", "draft_examples", "owner_rng", "pool_negatives"]


@dataclass(frozen=True, slots=True)
class TextPool:
    """Texts from outside an owner's memories that easy negatives may come from; `owners` are their scopes' keys."""

    texts: tuple[str, ...]
    ids: tuple[str, ...]
    owners: tuple[str, ...]
    # (n, dim), unit length
    vectors: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Draft:
    """An example, and how many easy negatives from outside it still lacks.

    `query_vector` and `positive_vector`, shape (dim,), are what those are chosen by.
    """

    example: TieredExample
    lacking: int
    query_vector: NDArray[np.float32]
    positive_vector: NDArray[np.float32]


def owner_rng(scope: Scope, seed: int) -> np.random.Generator:
    """Return an owner's own random generator: what is sampled does not depend on which owners came before."""
    import numpy as np

    return np.random.default_rng([seed, zlib.crc32(scope.owner.key.encode("utf-8", "replace"))])


def count_ranked(
    owner: OwnerMemories, evidence: Sequence[QueryEvidence], vectors: NDArray[np.float32], settings: MineSettings
) -> Counter[Tier]:
    """Count the tiers of what the encoder ranks in its top k for each real query, relative to its best positive.

    Args:
        owner: the owner's memories.
        evidence: the queries, those with positives count.
        vectors: the queries' vectors, shape (len(evidence), dim).
        settings: the miner's settings.
    """
    import numpy as np

    counts: Counter[Tier] = Counter()
    for one, vector in zip(evidence, vectors, strict=True):
        if not one.positives or not one.asked:
            continue
        best = max(one.positives, key=lambda row: one.positives[row].confidence)
        ranked = np.argsort(-(owner.vectors @ vector), kind="stable")[: settings.top_k]
        others = ranked[~np.isin(ranked, list(one.positives))]
        for tier, mask in tier_masks(owner, best).items():
            counts[tier] += int(mask[others].sum())
    return counts


def _ratio_for(owner: OwnerMemories, counts: Counter[Tier], settings: MineSettings) -> RatioEstimate:
    if isinstance(settings.ratio, Ratio):
        return RatioEstimate(settings.ratio, {})
    return estimate_ratio(counts, one_conversation=owner.conversation_count == 1)


def draft_examples(
    scope: Scope,
    owner: OwnerMemories,
    evidence: Sequence[QueryEvidence],
    vectors: NDArray[np.float32],
    settings: MineSettings,
    outside: bool,
) -> tuple[list[Draft], Ratio]:
    """Make an example of every positive of an owner.

    Args:
        scope: the owner.
        owner: the owner's memories.
        evidence: the queries with their positives.
        vectors: the queries' vectors, shape (len(evidence), dim).
        settings: the miner's settings.
        outside: whether easy negatives that the owner lacks can come from outside (`pool_negatives`).

    Returns:
        The drafts in order of the queries, and the ratio that they follow.
    """
    rng = owner_rng(scope, settings.seed)
    ratio = _ratio_for(owner, count_ranked(owner, evidence, vectors, settings), settings).ratio
    allocator = TierAllocator(ratio, settings.negatives)
    drafts: list[Draft] = []
    for one, vector in zip(evidence, vectors, strict=True):
        # (n,)
        scores = owner.vectors @ vector
        for row, positive in one.positives.items():
            candidates = _candidates(owner, one, row, scores, settings)
            available = {tier: len(rows) for tier, rows in candidates.items()}
            if outside:
                # What the owner's own conversations cannot give comes from outside.
                available[Tier.EASY] = max(available[Tier.EASY], settings.negatives)
            dealt = allocator.deal(available)
            negatives: list[Negative] = []
            for tier in (Tier.HARD, Tier.MEDIUM, Tier.EASY):
                pool = candidates[tier][: max(settings.near_pool, dealt[tier])]
                for other in _sample(pool, dealt[tier], rng):
                    negatives.append(Negative(owner.memories[other].id, owner.texts[other], tier, float(scores[other])))
            lacking = sum(dealt.values()) - len(negatives)
            example = TieredExample(scope, owner.memories[row].conversation, positive, tuple(negatives))
            drafts.append(Draft(example, lacking, vector, owner.vectors[row]))
    return drafts, ratio


def _candidates(
    owner: OwnerMemories, one: QueryEvidence, row: int, scores: NDArray[np.float32], settings: MineSettings
) -> dict[Tier, NDArray[np.int64]]:
    """Return the allowed rows of each tier: those that feedback rejected, then the nearest; each text once."""
    import numpy as np

    allowed = allowed_negatives(owner, one, row, scores, settings)
    order_key = -scores.astype(np.float64)
    order_key[list(one.rejected)] -= 4.0
    found: dict[Tier, NDArray[np.int64]] = {}
    for tier, mask in tier_masks(owner, row).items():
        rows = np.flatnonzero(mask & allowed)
        rows = rows[np.argsort(order_key[rows], kind="stable")]
        unique = {owner.keys[other]: other for other in reversed(rows[: 4 * (settings.near_pool + settings.negatives)])}
        found[tier] = np.asarray(list(reversed(unique.values())), dtype=np.int64)
    return found


def _sample(pool: NDArray[np.int64], count: int, rng: np.random.Generator) -> list[int]:
    """Return up to `count` distinct entries of the pool, in the pool's order."""
    places = rng.choice(len(pool), size=min(count, len(pool)), replace=False) if len(pool) else ()
    return [int(pool[place]) for place in sorted(places)]


def pool_negatives(draft: Draft, pool: TextPool, settings: MineSettings, rng: np.random.Generator) -> TieredExample:
    """Return the draft's example with the easy negatives that it lacks, from outside the owner's own memories.

    The same filters hold: the guard, and nothing that restates the positive. Texts of the owner's own are passed over.
    """
    import numpy as np

    example = draft.example
    own = np.asarray([owner == example.scope.owner.key and bool(owner) for owner in pool.owners])
    scores = pool.vectors @ draft.query_vector
    limit = guard_limit(float(draft.positive_vector @ draft.query_vector), settings.guard)
    restated = pool.vectors @ draft.positive_vector >= settings.duplicate_similarity
    rows = np.flatnonzero(~own & (scores < limit) & ~restated)
    rows = rows[np.argsort(-scores[rows], kind="stable")][: max(settings.near_pool, draft.lacking)]
    more = [
        Negative(pool.ids[row], pool.texts[row], Tier.EASY, float(scores[row]))
        for row in _sample(rows, draft.lacking, rng)
    ]
    return TieredExample(example.scope, example.conversation, example.positive, (*example.negatives, *more))


def make_pool(encoder: Encoder, texts: Sequence[str]) -> TextPool:
    """Return a pool of public texts, which belong to no owner."""
    unique = tuple(dict.fromkeys(text for text in texts if text.strip()))
    return TextPool(unique, ("",) * len(unique), ("",) * len(unique), encoder.encode(unique, role="document"))
