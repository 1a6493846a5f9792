"""Fits the miner's attribution model on questions whose evidence is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hins_memory.mining.owner.text import Lexicon
from hins_memory.mining.positives.attribution import AttributionModel, features, signals
from parts.mining.evidence_logs import Case

__all__ = ["fit"]

# Where the fit of the support weights starts, set by hand by what a unit of each signal can mean, and its pull.
_START = (1.0, 0.5, 0.7, 0.5, 0.15, 0.4, 0.4)
_PULL = 0.03
_SCALE = 4.0
# Weight of the questions whose evidence was taken out, beside the others.
_REMOVED_WEIGHT = 0.7
# What a search misses is learned from searches cut to this many results: few of the sample's miss anything.
_CUTS = (1, 2, 3, 5, 10, 20)


def fit(found: Sequence[Case]) -> AttributionModel:
    """Fit the attribution model on cases with evidence.

    The support weights: a softmax over all memories of the owner, pulled towards the weights set by hand. Then the
    logistic model over what the search returned, and the one over the best supported memory where that was not among
    the first few results, each question once as it is and once without its evidence among the memories: an answer
    need not come from any.
    """
    values = [signals(case.owner, case.question) for case in found]
    support = _fit_support(values, [case.gold for case in found])
    returned, unretrieved = _Rows(), _Rows()
    for case, value in zip(found, values, strict=True):
        left = np.flatnonzero(~case.gold)
        place = {int(row): new for new, row in enumerate(left)}
        ranked = [place[row] for row in case.ranked if row in place]
        for supported, order, gold, weight in (
            (value @ support, case.ranked, case.gold, 1.0),
            (_signals_without(case, left) @ support, ranked, np.zeros(len(left), dtype=bool), _REMOVED_WEIGHT),
        ):
            returned.add(features(supported, order)[order], gold[order], weight)
            best = int(np.argmax(supported))
            for cut in _CUTS:
                if best not in order[:cut]:
                    strength, *_, margin = features(supported, order[:cut])[best].tolist()
                    unretrieved.add(np.array([[strength, margin]]), gold[[best]], weight)
    intercept, weights = returned.fit()
    unretrieved_intercept, (by_support, by_margin) = unretrieved.fit()
    return AttributionModel(
        support=tuple(float(value) for value in support),
        intercept=intercept,
        weights=weights,
        unretrieved_intercept=unretrieved_intercept,
        unretrieved_weights=(by_support, by_margin),
    )


class _Rows:
    """What a logistic model is fitted on."""

    def __init__(self) -> None:
        self._features: list[NDArray[np.float64]] = []
        self._gold: list[NDArray[np.bool_]] = []
        self._weights: list[NDArray[np.float64]] = []

    def add(self, values: NDArray[np.float64], gold: NDArray[np.bool_], weight: float) -> None:
        self._features.append(values)
        self._gold.append(gold)
        self._weights.append(np.full(len(values), weight))

    def fit(self) -> tuple[float, tuple[float, ...]]:
        """Return the intercept and a weight for each feature."""
        from sklearn.linear_model import LogisticRegression

        logistic = LogisticRegression(max_iter=2000)
        weights = np.concatenate(self._weights)
        logistic.fit(np.concatenate(self._features), np.concatenate(self._gold), sample_weight=weights)
        return float(logistic.intercept_[0]), tuple(float(value) for value in logistic.coef_[0])


def _signals_without(case: Case, left: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the signals, shape (len(left), 7), as if only the memories `left` had been stored."""
    owner = case.owner
    picked: dict[str, Any] = {
        name: tuple(getattr(owner, name)[int(row)] for row in left)
        for name in ("memories", "texts", "keys", "speakers")
    }
    arrays = {
        name: getattr(owner, name)[left]
        for name in ("vectors", "speaker_codes", "key_codes", "conversations", "topics")
    }
    lexicon = Lexicon(picked["keys"])
    return signals(replace(owner, **picked, **arrays, lexicon=lexicon), case.question)


def _fit_support(values: Sequence[NDArray[np.float64]], gold: Sequence[NDArray[np.bool_]]) -> NDArray[np.float64]:
    from scipy.optimize import minimize
    from scipy.special import logsumexp, softmax

    start = np.asarray(_START) * _SCALE
    usable = [(value, right) for value, right in zip(values, gold, strict=True) if right.any()]

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        total, slope = _PULL * float(((weights - start) ** 2).sum()), 2 * _PULL * (weights - start)
        for value, right in usable:
            logits = value @ weights
            total += float(logsumexp(logits) - logsumexp(logits[right])) / len(usable)
            expected = softmax(logits) @ value - softmax(logits[right]) @ value[right]
            slope = slope + expected / len(usable)
        return total, slope

    return np.asarray(minimize(loss, start, jac=True, method="L-BFGS-B").x) / _SCALE
