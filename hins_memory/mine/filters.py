"""What may not be a negative: false negatives, that is, memories that may well be relevant to the query."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hins_memory.mine.owner import OwnerMemories
from hins_memory.mine.positives import QueryEvidence
from hins_memory.mine.settings import MineSettings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["allowed_negatives", "guard_limit"]


def guard_limit(positive_score: float, guard: float | None) -> float:
    """Return the cosine with the query that a negative must stay under (NV-Retriever's positive-aware guard).

    For a positive score of zero or less the limit still lies below it; without a guard there is none.
    """
    if guard is None:
        return float("inf")
    return positive_score - (1.0 - guard) * abs(positive_score)


def allowed_negatives(
    owner: OwnerMemories,
    evidence: QueryEvidence,
    positive: int,
    scores: NDArray[np.float32],
    settings: MineSettings,
) -> NDArray[np.bool_]:
    """Return which of the owner's memories may be negatives of a (query, positive) pair.

    Args:
        owner: the owner's memories.
        evidence: what the log says about the query.
        positive: the positive's row.
        scores: cosine of the query with each memory, shape (n,).
        settings: the miner's settings.

    Returns:
        A mask of shape (n,). What negative feedback rejected is allowed whatever its score.
    """
    import numpy as np

    allowed = scores < guard_limit(float(scores[positive]), settings.guard)
    if evidence.plausible is not None:
        allowed &= evidence.plausible < settings.max_plausible
    allowed[list(evidence.rejected)] = True
    positives = list(evidence.positives)
    # The same fact restated is as near to a positive as its own words are.
    restated = (owner.vectors @ owner.vectors[positives].T).max(axis=1) >= settings.duplicate_similarity
    allowed &= ~restated
    allowed &= ~np.isin(owner.key_codes, owner.key_codes[positives])
    allowed[positives] = False
    return allowed
