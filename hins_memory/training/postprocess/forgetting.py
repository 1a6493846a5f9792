"""Against forgetting: less of what was learned is kept where general retrieval would lose more than is allowed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from hins_memory.evaluation import evaluate_encoder

if TYPE_CHECKING:
    from hins_memory.encoders.encoder import Encoder
    from hins_memory.evaluation import EvalSet

__all__ = ["hold_general"]

_K = 10
# What is kept is cut to this share at a time, and at most so often: to a fifth.
_CUT, _MOST_CUTS = 0.75, 6


def hold_general(
    base: Encoder, general: EvalSet, limit: float, trained: Callable[[], Encoder], weaken: Callable[[float], object]
) -> dict[str, float]:
    """Weaken what was learned until general retrieval loses no more than the limit, or a fifth of it is left.

    Args:
        base: what training started from.
        general: a general-retrieval set.
        limit: how much nDCG@10 may be lost, 0 to 1.
        trained: returns the trained encoder as it is now.
        weaken: keeps that share, 0 to 1, of what is left of what was learned.

    Returns:
        nDCG@10 ``before`` and ``after``, 0 to 1, how much loss was ``allowed``, and the share that was ``kept``.
    """

    def score(encoder: Encoder) -> float:
        return evaluate_encoder(encoder, [general], ks=(_K,)).mean()[f"ndcg@{_K}"]

    before, after, kept = score(base), score(trained()), 1.0
    for _ in range(_MOST_CUTS):
        if before - after <= limit:
            break
        weaken(_CUT)
        kept *= _CUT
        after = score(trained())
    measured = {"before": before, "after": after, "allowed": limit, "kept": kept}
    return {name: round(value, 5) for name, value in measured.items()}
