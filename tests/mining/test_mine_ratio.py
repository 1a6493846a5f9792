"""The ratio, its prior and uncertainty, and how negatives are dealt by it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hins_memory.errors import ConfigError
from hins_memory.mining.negatives.ratio import PRIOR, TierAllocator, estimate_ratio
from hins_memory.mining.negatives.tiers import PAPER_TIERS
from hins_memory.mining.settings import MineSettings
from hins_memory.types import Ratio, Tier

PLENTY = dict.fromkeys(PAPER_TIERS, 100)


def test_nothing_counted_is_the_prior():
    estimate = estimate_ratio({})
    assert estimate.ratio.source == "prior"
    assert estimate.ratio.count == 0
    assert estimate.ratio.share(Tier.HARD) == pytest.approx(PRIOR.hard)


def test_counts_outweigh_the_prior_and_narrow_the_interval():
    few = estimate_ratio({Tier.EASY: 5, Tier.MEDIUM: 3, Tier.HARD: 2})
    many = estimate_ratio({Tier.EASY: 5000, Tier.MEDIUM: 3000, Tier.HARD: 2000})
    assert many.ratio.easy == pytest.approx(0.5, abs=0.01)
    assert abs(few.ratio.easy - PRIOR.easy) < abs(many.ratio.easy - PRIOR.easy)
    for tier in PAPER_TIERS:
        width = [high - low for low, high in (few.interval[tier], many.interval[tier])]
        assert width[0] > 3 * width[1]
        low, high = many.interval[tier]
        assert low < many.ratio.share(tier) < high
    assert many.ratio.source == "empirical"
    assert many.ratio.count == 10_000


@pytest.mark.slow
@given(st.lists(st.floats(0, 1), min_size=3, max_size=3).filter(lambda v: sum(v) > 0.1), st.integers(1, 6))
def test_over_many_queries_each_tier_gets_its_share(shares, negatives):
    total = sum(shares)
    easy, medium = shares[0] / total, shares[1] / total
    ratio = Ratio(easy, medium, max(0.0, 1 - easy - medium))
    allocator, dealt, queries = TierAllocator(ratio, negatives), dict.fromkeys(PAPER_TIERS, 0), 400
    for _ in range(queries):
        one = allocator.deal(PLENTY)
        assert sum(one.values()) == negatives
        for tier in PAPER_TIERS:
            dealt[tier] += one[tier]
    for tier in PAPER_TIERS:
        assert dealt[tier] / (queries * negatives) == pytest.approx(ratio.share(tier), abs=0.01)


@given(st.lists(st.tuples(*[st.integers(0, 3)] * 3), max_size=30), st.integers(1, 5))
def test_never_more_than_available_and_never_fewer_than_possible(available, negatives):
    allocator = TierAllocator(Ratio(0.2, 0.5, 0.3), negatives)
    for row in available:
        offered = dict(zip(PAPER_TIERS, row, strict=True))
        dealt = allocator.deal(offered)
        assert all(dealt[tier] <= offered[tier] for tier in PAPER_TIERS)
        assert sum(dealt.values()) == min(negatives, sum(row))


def test_a_tier_of_share_zero_is_the_last_resort():
    allocator = TierAllocator(Ratio(0, 1, 0), 3)
    assert allocator.deal(PLENTY) == {Tier.EASY: 0, Tier.MEDIUM: 3, Tier.HARD: 0}
    assert sum(allocator.deal({Tier.HARD: 2}).values()) == 2


@pytest.mark.parametrize(
    "options",
    [{"negatives": 0}, {"guard": 0.0}, {"guard": 1.5}, {"min_confidence": -0.1}, {"max_owner_share": 0.0},
     {"ratio": "guess"}, {"memory_budget": 1}, {"max_plausible": 2.0}, {"duplicate_similarity": 0.0}],
)  # fmt: skip
def test_bad_settings_are_refused(options):
    with pytest.raises(ConfigError):
        MineSettings(**options)
