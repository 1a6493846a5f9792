"""A limit on forgetting: the trained update is scaled down until no more is lost elsewhere than is allowed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from hins_memory.evaluation.evaluate import evaluate_encoders

if TYPE_CHECKING:
    from hins_memory.encoders.encoder import Encoder
    from hins_memory.training.auxiliary_data import AuxiliaryData

__all__ = ["limit_forgetting"]

_K = 10
# The update is multiplied by this factor, at most this many times: at least a sixth of it is left.
_FACTOR, _MAX_CUTS = 0.75, 6


def limit_forgetting(
    base: Encoder,
    auxiliary: AuxiliaryData,
    trained: Callable[[], Encoder],
    scale_update: Callable[[float], object],
) -> dict[str, dict[str, float]]:
    """Scale the trained update down until neither general retrieval nor the skills lose more than is allowed.

    At least a sixth of the update is left.

    Args:
        base: what training started from.
        auxiliary: `general` and `skills` are what is measured, each by itself and where it is there; `general_loss` is
            how much nDCG@10 each may lose.
        trained: returns the trained encoder as it is now.
        scale_update: multiplies the update, the difference between the trained weights and the base's, by a factor
            from 0 to 1.

    Returns:
        For ``general`` and ``skills``, where there are such sets: nDCG@10 ``before`` and ``after``, 0 to 1; the loss
        that was ``allowed``; the share of the update that was ``kept``, 0 to 1.
    """
    sets = {"general": [auxiliary.general] if auxiliary.general else [], "skills": list(auxiliary.skills)}
    sets = {name: some for name, some in sets.items() if some}
    if not sets:
        return {}

    def score(now: Encoder) -> list[dict[str, float]]:
        # Always with the base, which keeps its vectors: where only queries are trained, no document is embedded again.
        found = {name: evaluate_encoders((base, now), some, ks=(_K,)) for name, some in sets.items()}
        return [{name: one[row].mean()[f"ndcg@{_K}"] for name, one in found.items()} for row in range(2)]

    before, after = score(trained())
    kept_share, limit = 1.0, auxiliary.general_loss
    for _ in range(_MAX_CUTS):
        if all(before[name] - after[name] <= limit for name in sets):
            break
        scale_update(_FACTOR)
        kept_share *= _FACTOR
        _, after = score(trained())
    measured = {
        name: {"before": before[name], "after": after[name], "allowed": limit, "kept": kept_share} for name in sets
    }
    return {name: {key: round(value, 5) for key, value in one.items()} for name, one in measured.items()}
