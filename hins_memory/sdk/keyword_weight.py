"""How much a search by keyword counts beside the cosines, where a framework's sum of the two can be influenced."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["weighted_keywords"]


def weighted_keywords(scores: Sequence[float], weight: float) -> list[float]:
    """Return what each result of a search by keyword adds to its cosine: the best one the weight, others their share.

    Scores by keyword have no common scale: BM25's grow with the length of the query and the size of the collection,
    and PostgreSQL's rank lies below 1. Their ratios within one search are all that is used.

    Args:
        scores: the scores of one search's results; a score of 0 or less adds nothing.
        weight: 0 to 1; a cosine's worth of the best result.
    """
    best = max(scores, default=0.0)
    return [weight * score / best if score > 0 else 0.0 for score in scores]
