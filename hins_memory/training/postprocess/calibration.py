"""After training: scores brought back to the base encoder's scale, because frameworks hard-code cosines as thresholds.

Contrastive training spreads texts out, so that all cosines fall; `hins_memory.encoders.score_offset` raises them again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hins_memory.encoders.encoder import Encoder
from hins_memory.encoders.score_offset import with_lift
from hins_memory.training.postprocess.traffic import Traffic, TrafficVectors

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import Tensor

__all__ = ["calibrated", "fit_lift", "share_difference", "shares_above"]

# The lifts that are tried: 0 to 4 in steps of 0.002, so that a share is met about as well as a sample allows.
_STEPS, _STEP = 2000, 0.002
# Shares below this count as this in a relative difference, as in the gate.
_LEAST_SHARE = 0.01


def shares_above(scores: Tensor, cutoffs: Sequence[float]) -> list[float]:
    """Return the share of scores that reach each cut-off, 0 to 1."""
    return [float((scores >= cutoff).float().mean()) for cutoff in cutoffs]


def share_difference(wanted: Sequence[float], found: Sequence[float]) -> float:
    """Return the largest relative difference of shares."""
    pairs = zip(wanted, found, strict=True)
    return max((abs(one - other) / max(one, _LEAST_SHARE) for one, other in pairs), default=0.0)


def fit_lift(before: Tensor, after: Tensor, cutoffs: Sequence[float]) -> float:
    """Return the lift c^2 under which scores reach the cut-offs as often as before training; 0 when none is needed.

    One number cannot meet several cut-offs exactly: the largest relative difference is made as small as possible.

    Args:
        before: scores of the best results under the base encoder, of shape (n,).
        after: those under the trained one.
        cutoffs: the cosines that matter.
    """
    import torch

    wanted = torch.tensor(shares_above(before, cutoffs))
    weight = 1 / wanted.clamp_min(_LEAST_SHARE)
    # (lifts,)
    lifts = torch.arange(_STEPS) * _STEP
    ordered = after.sort().values
    costs = torch.zeros(_STEPS)
    for number, cutoff in enumerate(cutoffs):
        # (s + lift) / (1 + lift) >= cutoff
        least = cutoff * (1 + lifts) - lifts
        reached = 1 - torch.searchsorted(ordered, least.to(ordered.dtype)) / len(ordered)
        costs = torch.maximum(costs, (reached - wanted[number]).abs() * weight[number])
    return float(lifts[costs.argmin()])


def calibrated(
    model: SentenceTransformer, base: Encoder, traffic: Sequence[Traffic], cutoffs: Sequence[float]
) -> tuple[SentenceTransformer, dict[str, Any]]:
    """Return a trained model with its scores on the base encoder's scale, and what was measured.

    Args:
        model: the trained model.
        base: the encoder that training started from.
        traffic: queries with the texts that they were asked of.
        cutoffs: the cosines that matter.

    Returns:
        The model, and ``{"lift": ..., "cutoffs": {"0.5": [share under the base, without the lift, with it]}}``.
    """
    import torch

    before = TrafficVectors(traffic, base).all_best_scores()
    vectors = TrafficVectors(traffic, Encoder(model, "trained", cache_size=0))
    after = vectors.all_best_scores()
    lift = fit_lift(before, after, cutoffs)
    shares = [shares_above(scores, cutoffs) for scores in (before, after, (after + lift) / (1 + lift))]
    found = {f"{cutoff:g}": [round(row[number], 5) for row in shares] for number, cutoff in enumerate(cutoffs)}
    if lift:
        # the direction that the vectors use least
        everything = torch.cat([*vectors.queries, *vectors.texts])
        direction = torch.linalg.eigh(everything.T @ everything).eigenvectors[:, 0]
        model = with_lift(model, lift, direction)
    return model, {"lift": lift, "cutoffs": found}
