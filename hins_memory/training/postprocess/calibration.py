"""Score calibration after training: cosines return to the base encoder's scale, for frameworks with fixed thresholds.

Contrastive training spreads texts out, so that all cosines fall; `hins_memory.encoders.score_offset` raises them again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hins_memory.encoders.encoder import Encoder
from hins_memory.encoders.score_offset import with_score_offset
from hins_memory.training.query_samples import QuerySample, SampleVectors

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import Tensor

__all__ = ["calibrate_scores", "fit_score_offset", "max_share_difference", "share_table", "shares_above"]

# The offsets that are tried: 0 to 4 in steps of 0.002, so that a share is met about as well as a sample allows.
_STEPS, _STEP = 2000, 0.002
# A share below this counts as this in a relative difference, as in the gate.
_MIN_SHARE = 0.01


def shares_above(scores: Tensor, thresholds: Sequence[float]) -> list[float]:
    """Return the share of scores that reach each threshold, 0 to 1."""
    return [float((scores >= threshold).float().mean()) for threshold in thresholds]


def share_table(stages: Sequence[Tensor], thresholds: Sequence[float]) -> dict[str, list[float]]:
    """Return, by threshold, the share of scores that reach it at each stage, 0 to 1, rounded to five places.

    Args:
        stages: scores of shape (n,), e.g. before and after training.
        thresholds: cosines.
    """
    shares = [shares_above(scores, thresholds) for scores in stages]
    return {f"{threshold:g}": [round(row[i], 5) for row in shares] for i, threshold in enumerate(thresholds)}


def max_share_difference(wanted: Sequence[float], found: Sequence[float]) -> float:
    """Return the largest relative difference of two lists of shares."""
    pairs = zip(wanted, found, strict=True)
    return max((abs(one - other) / max(one, _MIN_SHARE) for one, other in pairs), default=0.0)


def fit_score_offset(before: Tensor, after: Tensor, thresholds: Sequence[float]) -> float:
    """Return the offset c^2 with which as many scores reach the thresholds as before training; 0 when none is needed.

    One number cannot meet several thresholds exactly: the largest relative difference is made as small as possible.

    Args:
        before: scores of the top results under the base encoder, of shape (n,).
        after: those under the trained one.
        thresholds: the cosines that matter.
    """
    import torch

    wanted = torch.tensor(shares_above(before, thresholds))
    weight = 1 / wanted.clamp_min(_MIN_SHARE)
    # (offsets,)
    offsets = torch.arange(_STEPS) * _STEP
    ordered = after.sort().values
    costs = torch.zeros(_STEPS)
    for i, threshold in enumerate(thresholds):
        # (s + offset) / (1 + offset) >= threshold
        lowest = threshold * (1 + offsets) - offsets
        reached = 1 - torch.searchsorted(ordered, lowest.to(ordered.dtype)) / len(ordered)
        costs = torch.maximum(costs, (reached - wanted[i]).abs() * weight[i])
    return float(offsets[costs.argmin()])


def calibrate_scores(
    model: SentenceTransformer, base: Encoder, samples: Sequence[QuerySample], thresholds: Sequence[float]
) -> tuple[SentenceTransformer, dict[str, Any]]:
    """Return a trained model with its scores on the base encoder's scale, and what was measured.

    Args:
        model: the trained model.
        base: the encoder that training started from.
        samples: queries with the texts that were searched.
        thresholds: the cosines that matter.

    Returns:
        The model, and the manifest's ``{"lift": offset, "cutoffs": {"0.5": [share of the top results under the base,
        under the trained model, with the offset]}}``.
    """
    import torch

    before = SampleVectors(samples, base).all_top_scores()
    vectors = SampleVectors(samples, Encoder(model, "trained", cache_size=0))
    after = vectors.all_top_scores()
    offset = fit_score_offset(before, after, thresholds)
    shares = share_table((before, after, (after + offset) / (1 + offset)), thresholds)
    if offset:
        # The direction that the vectors use least.
        everything = torch.cat([*vectors.queries, *vectors.texts])
        direction = torch.linalg.eigh(everything.T @ everything).eigenvectors[:, 0]
        model = with_score_offset(model, offset, direction)
    return model, {"lift": offset, "cutoffs": shares}
