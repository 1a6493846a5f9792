"""The share of each tier among negatives: counted in what the current encoder ranks high, with a prior."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hins_memory.mining.negatives.tiers import PAPER_TIERS
from hins_memory.types import Ratio, Tier

__all__ = ["PRIOR", "PRIOR_COUNT", "RatioEstimate", "TierAllocator", "estimate_ratio"]

#: Shares assumed before anything is counted: those in synthetic conversations made of persona chats, three to an
#: owner (benchmarks/start.py, docs/results/cold-start.md).
PRIOR = Ratio(easy=0.17, medium=0.80, hard=0.03, source="prior")
#: How many ranked memories the prior weighs as much as.
PRIOR_COUNT = 60
_DRAWS = 5_000


@dataclass(frozen=True, slots=True)
class RatioEstimate:
    """A ratio with its Dirichlet posterior: a count for each tier, none where the ratio was given."""

    ratio: Ratio
    posterior: Mapping[Tier, float]

    @property
    def interval(self) -> dict[Tier, tuple[float, float]]:
        """The 95% credible interval of each tier's share; empty where the ratio was given."""
        import numpy as np

        if not self.posterior:
            return {}
        # (draws, 3). Fixed seed: reproducible interval.
        draws = np.random.default_rng(0).dirichlet([self.posterior[tier] for tier in PAPER_TIERS], size=_DRAWS)
        limits = np.quantile(draws, (0.025, 0.975), axis=0)
        return {tier: (float(limits[0, place]), float(limits[1, place])) for place, tier in enumerate(PAPER_TIERS)}


def estimate_ratio(counts: Mapping[Tier, int]) -> RatioEstimate:
    """Estimate the ratio from counted tiers.

    Args:
        counts: how many of the memories that the encoder ranked high were in each tier.

    Returns:
        The posterior mean; its source is "prior" where nothing was counted.
    """
    total = sum(counts.get(tier, 0) for tier in PAPER_TIERS)
    alpha = {tier: PRIOR.share(tier) * PRIOR_COUNT + counts.get(tier, 0) for tier in PAPER_TIERS}
    mass = sum(alpha.values())
    shares = {tier: alpha[tier] / mass for tier in PAPER_TIERS}
    ratio = Ratio(
        easy=shares[Tier.EASY],
        medium=shares[Tier.MEDIUM],
        hard=shares[Tier.HARD],
        source="empirical" if total else "prior",
        count=total,
    )
    return RatioEstimate(ratio, alpha)


class TierAllocator:
    """Allocates negatives to queries so that over many queries each tier gets its share.

    With three negatives and shares of 0.5, 0.3 and 0.2 no single query can have the ratio; what a tier should
    have got and did not get is carried to the next query.
    """

    def __init__(self, ratio: Ratio, negatives: int) -> None:
        self._usual = [place for place, tier in enumerate(PAPER_TIERS) if ratio.share(tier) > 0]
        self._negatives = negatives
        self._due = [ratio.share(tier) * negatives for tier in PAPER_TIERS]
        self._owed = [0.0] * len(PAPER_TIERS)

    def deal(self, available: Mapping[Tier, int]) -> dict[Tier, int]:
        """Return how many negatives of each tier the next query gets, never more than are available.

        Args:
            available: how many there are of each tier.
        """
        owed, most = self._owed, self._negatives
        for place, due in enumerate(self._due):
            # Bounded: a tier that is missing for long must not flood the queries after it.
            now = owed[place] + due
            owed[place] = most if now > most else -most if now < -most else now
        left = [available.get(tier, 0) for tier in PAPER_TIERS]
        dealt = dict.fromkeys(PAPER_TIERS, 0)
        among = [place for place in self._usual if left[place]]
        for _ in range(most):
            # A tier of share zero is dealt only where the others have run out.
            among = among or [place for place, has in enumerate(left) if has]
            if not among:
                break
            place = max(among, key=owed.__getitem__)
            dealt[PAPER_TIERS[place]] += 1
            left[place] -= 1
            owed[place] -= 1.0
            if not left[place]:
                among.remove(place)
        return dealt
