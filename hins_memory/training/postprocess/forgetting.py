"""A limit on forgetting: the trained update is scaled down until general retrieval loses no more than is allowed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from hins_memory.evaluation import evaluate_encoder

if TYPE_CHECKING:
    from hins_memory.encoders.encoder import Encoder
    from hins_memory.evaluation import EvalSet

__all__ = ["limit_forgetting"]

_K = 10
# The update is multiplied by this factor, at most this many times: at least a sixth of it is left.
_FACTOR, _MAX_CUTS = 0.75, 6


def limit_forgetting(
    base: Encoder,
    general: EvalSet,
    limit: float,
    trained: Callable[[], Encoder],
    scale_update: Callable[[float], object],
) -> dict[str, float]:
    """Scale the trained update down until general retrieval loses no more than the limit, or a sixth of it is left.

    Args:
        base: what training started from.
        general: a general-retrieval set.
        limit: how much nDCG@10 may be lost, 0 to 1.
        trained: returns the trained encoder as it is now.
        scale_update: multiplies the update, the difference between the trained weights and the base's, by a factor
            from 0 to 1.

    Returns:
        nDCG@10 ``before`` and ``after``, 0 to 1; the loss that was ``allowed``; the share of the update that was
        ``kept``, 0 to 1.
    """

    def score(encoder: Encoder) -> float:
        return evaluate_encoder(encoder, [general], ks=(_K,)).mean()[f"ndcg@{_K}"]

    before, after, kept_share = score(base), score(trained()), 1.0
    for _ in range(_MAX_CUTS):
        if before - after <= limit:
            break
        scale_update(_FACTOR)
        kept_share *= _FACTOR
        after = score(trained())
    measured = {"before": before, "after": after, "allowed": limit, "kept": kept_share}
    return {name: round(value, 5) for name, value in measured.items()}
