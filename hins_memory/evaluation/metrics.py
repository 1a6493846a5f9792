"""Ranking metrics per query (nDCG, recall, reciprocal rank), shares above thresholds, and the paired bootstrap."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hins_memory.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["BootstrapResult", "cutoff_shares", "ndcg", "paired_bootstrap", "recall", "reciprocal_rank"]

# Resampled indexes held at a time by the bootstrap: 32 MiB of int64.
_MAX_DRAWS = 1 << 22


@dataclass(frozen=True, slots=True)
class BootstrapResult:
    """A paired difference (candidate minus baseline) with its bootstrap interval.

    Attributes:
        difference: the mean difference over queries.
        low: lower end of the percentile interval.
        high: upper end of it.
        p_value: two-sided bootstrap p-value of "no difference".
        queries: how many pairs there were.
        clusters: how many units were resampled; equal to `queries` without clusters.
    """

    difference: float
    low: float
    high: float
    p_value: float
    queries: int
    clusters: int


def _discounted_sum(gains: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """Return DCG@k of gains of shape (n, depth), as shape (n,); discount 1 / log2(rank + 1), ranks from 1."""
    depth = min(k, gains.shape[1])
    discounts = 1.0 / np.log2(np.arange(2, depth + 2))
    return np.asarray(gains[:, :depth] @ discounts)


def _as_gains(gains: ArrayLike, name: str) -> NDArray[np.float64]:
    array = np.asarray(gains, dtype=np.float64)
    if array.ndim != 2 or not np.isfinite(array).all() or (array < 0).any():
        raise ConfigError(f"{name} must be a table (queries, ranks) of finite gains >= 0.", "Check their shape.")
    return array


def ndcg(gains: ArrayLike, ideal: ArrayLike, k: int) -> NDArray[np.float64]:
    """Return nDCG@k per query (Järvelin & Kekäläinen 2002, linear gains, log2 discount).

    Args:
        gains: shape (n, depth): the gain of the document at each rank, binary or graded, 0 where there is none.
        ideal: shape (n, m): the gains of all relevant documents of each query, in any order, padded with 0.
        k: how many ranks count, at least 1.

    Returns:
        Shape (n,), 0 to 1; 0 for a query without any relevant document.

    Raises:
        ConfigError: a shape or a value is not as described.
    """
    achieved = _discounted_sum(_as_gains(gains, "gains"), k)
    best = _discounted_sum(-np.sort(-_as_gains(ideal, "ideal"), axis=1), k)
    return np.asarray(np.divide(achieved, best, out=np.zeros_like(achieved), where=best > 0))


def recall(gains: ArrayLike, totals: ArrayLike, k: int) -> NDArray[np.float64]:
    """Return recall@k per query.

    Args:
        gains: shape (n, depth): above 0 where the document at that rank is relevant.
        totals: shape (n,): how many relevant documents each query has.
        k: how many ranks count, at least 1.

    Returns:
        Shape (n,), 0 to 1; 0 for a query without any relevant document.
    """
    hits = (_as_gains(gains, "gains")[:, :k] > 0).sum(axis=1).astype(np.float64)
    relevant = np.asarray(totals, dtype=np.float64)
    return np.asarray(np.divide(hits, relevant, out=np.zeros_like(hits), where=relevant > 0))


def reciprocal_rank(gains: ArrayLike) -> NDArray[np.float64]:
    """Return 1 / rank of the first relevant document per query, 0 where there is none.

    Args:
        gains: shape (n, depth): above 0 where the document at that rank is relevant.

    Returns:
        Shape (n,), 0 to 1.
    """
    hits = _as_gains(gains, "gains") > 0
    if hits.shape[1] == 0:
        return np.zeros(len(hits))
    return np.asarray(np.where(hits.any(axis=1), 1.0 / (hits.argmax(axis=1) + 1), 0.0))


def paired_bootstrap(
    candidate: ArrayLike,
    baseline: ArrayLike,
    *,
    samples: int = 10_000,
    seed: int = 0,
    clusters: Sequence[Any] | None = None,
    confidence: float = 0.95,
) -> BootstrapResult:
    """Estimate by how much the candidate is better, resampling queries, or whole clusters of them, in pairs.

    Args:
        candidate: shape (n,): the candidate's score of each query.
        baseline: shape (n,): the baseline's score of the same queries.
        samples: how many resamples to draw.
        seed: seed of the resampling.
        clusters: n labels, e.g. conversations; queries of one label are drawn together, which widens the interval
            when their scores are correlated. None resamples single queries.
        confidence: coverage of the interval, between 0 and 1.

    Raises:
        ConfigError: the arrays do not pair up, are empty or hold NaN, or a setting is out of range.
    """
    first, second = np.asarray(candidate, dtype=np.float64), np.asarray(baseline, dtype=np.float64)
    if first.ndim != 1 or first.shape != second.shape or first.size == 0:
        raise ConfigError(
            f"Scores of shapes {first.shape} and {second.shape} do not pair up.", "Score the same queries."
        )
    if samples < 1 or not 0 < confidence < 1:
        raise ConfigError(f"samples={samples}, confidence={confidence}.", "Use samples >= 1, 0 < confidence < 1.")
    differences = first - second
    if not np.isfinite(differences).all():
        raise ConfigError("The scores hold NaN or infinite values.", "Score every query.")
    labels = range(differences.size) if clusters is None else clusters
    if len(labels) != differences.size:
        raise ConfigError(f"{len(labels)} cluster labels for {differences.size} queries.", "Give one label a query.")
    index_of: dict[Any, int] = {}
    members = np.array([index_of.setdefault(label, len(index_of)) for label in labels])
    sums, counts = np.bincount(members, weights=differences), np.bincount(members).astype(np.float64)
    means = _resample(lambda drawn: sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1), len(sums), samples, seed)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    # + 1: the observed sample counts as one of the draws, so that a p-value is above 0.
    below, above = int((means <= 0).sum()) + 1, int((means >= 0).sum()) + 1
    return BootstrapResult(
        difference=float(differences.mean()),
        low=float(low),
        high=float(high),
        p_value=min(1.0, 2 * min(below, above) / (samples + 1)),
        queries=differences.size,
        clusters=len(sums),
    )


def _resample(
    statistic: Callable[[NDArray[np.int64]], NDArray[np.float64]], units: int, samples: int, seed: int
) -> NDArray[np.float64]:
    """Return `statistic` of `samples` draws with replacement, in blocks so that memory stays bounded."""
    random = np.random.default_rng(seed)
    step = max(1, _MAX_DRAWS // units)
    blocks = [
        statistic(random.integers(units, size=(min(step, samples - start), units))) for start in range(0, samples, step)
    ]
    return np.concatenate(blocks)


def cutoff_shares(scores: ArrayLike, cutoffs: Iterable[float]) -> dict[float, float]:
    """Return, for each cut-off, the share of scores that reach it (>=), 0 to 1.

    Args:
        scores: cosine scores of any shape, e.g. `RankingScores.top_scores`; NaN entries are left out.
        cutoffs: the cosine values that a framework uses as thresholds.

    Raises:
        ConfigError: there is no score.
    """
    values = np.asarray(scores, dtype=np.float64).ravel()
    values = values[~np.isnan(values)]
    if values.size == 0:
        raise ConfigError("There is no score to compare with the cut-offs.", "Evaluate at least one query.")
    return {float(cutoff): float((values >= cutoff).mean()) for cutoff in cutoffs}
