"""The growth of a cost: a power law is found again, and what is told of larger sizes has the truth in its interval."""

from __future__ import annotations

import random

import pytest

from parts.common.growth import fit_growth

SIZES = [1000.0, 3000.0, 10_000.0, 30_000.0] * 2


def test_a_power_law_is_found_again() -> None:
    sizes = [10.0, 100.0, 1000.0]
    growth = fit_growth(sizes, [3 * size**1.5 for size in sizes])
    assert (growth.exponent, growth.constant) == (pytest.approx(1.5), pytest.approx(3))
    assert growth.high - growth.low < 1e-6
    assert growth.at(1e6) == pytest.approx((3e9, 3e9, 3e9))


@pytest.mark.parametrize("base", [0.0, 500.0], ids=["no fixed cost", "a fixed cost"])
def test_the_interval_holds_the_truth_about_as_often_as_it_says(base: float) -> None:
    rng = random.Random(1)
    exponents = told = 0
    for _ in range(400):
        costs = [(base + size) * rng.lognormvariate(0, 0.05) for size in SIZES]
        growth = fit_growth(SIZES, costs, fixed=base > 0)
        exponents += growth.low <= 1 <= growth.high
        _, low, high = growth.at(1e6)
        told += low <= (base + 1e6) * rng.lognormvariate(0, 0.05) <= high
    # 95% of 400 is 380; three standard errors are 13.
    assert 367 <= exponents <= 396
    assert 367 <= told <= 396


def test_a_fixed_cost_that_is_not_fitted_makes_a_linear_cost_look_cheaper_than_it_is() -> None:
    costs = [500 + size for size in SIZES]
    assert fit_growth(SIZES, costs).exponent < 0.97
    growth = fit_growth(SIZES, costs, fixed=True)
    assert (growth.exponent, growth.fixed) == (pytest.approx(1), pytest.approx(500))
    # Where there is no fixed cost to find, none is fitted.
    assert fit_growth(SIZES, SIZES, fixed=True).fixed == pytest.approx(0)
