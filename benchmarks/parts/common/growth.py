"""How a cost grows with the size: the exponent of a power law with its interval, and what it says of larger sizes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Growth", "fit_growth"]

_LEVEL = 0.95
# A fixed cost that is a smaller share of the least measured one is not told from none.
_NO_FIXED = 1e-3


@dataclass(frozen=True, slots=True)
class Growth:
    """A law ``cost = fixed + constant * size ** exponent``, fitted by least squares of the logarithms of the costs.

    Attributes:
        exponent: 1 is linear.
        low: lower end of its 95% interval (Student's t), `high` the upper.
        constant: what size 1 adds to the fixed cost.
        fixed: what any size costs, e.g. for opening files; 0 where none was fitted.
        measured: how many measurements it is fitted to.
    """

    exponent: float
    low: float
    high: float
    constant: float
    fixed: float
    measured: int
    _covariance: NDArray[np.float64]
    _error: float
    _quantile: float

    def at(self, size: float) -> tuple[float, float, float]:
        """Return the cost of a size, and both ends of the 95% interval of a measurement there, if the law holds."""
        parameters = [math.log(self.constant), self.exponent, *([math.log(self.fixed)] if self.fixed else [])]
        slope = _slopes(np.asarray([math.log(size)]), *parameters)[0]
        middle = float(_law(np.asarray([math.log(size)]), *parameters)[0])
        width = self._quantile * math.sqrt(float(slope @ self._covariance @ slope) + self._error**2)
        # No float holds the exponential of more than 709.
        return math.exp(middle), math.exp(middle - width), math.exp(min(middle + width, 700.0))

    def to_dict(self, *sizes: float) -> dict[str, Any]:
        """Return it as JSON-able values, with what it says of sizes."""
        told = {f"{size:g}": self.at(size) for size in sizes}
        return {
            "exponent": self.exponent,
            "exponent_low": self.low,
            "exponent_high": self.high,
            "constant": self.constant,
            "fixed": self.fixed,
            "measured": self.measured,
            "at": {size: {"value": value[0], "low": value[1], "high": value[2]} for size, value in told.items()},
        }


def fit_growth(sizes: Sequence[float], costs: Sequence[float], *, fixed: bool = False) -> Growth:
    """Fit the law to measured costs, each of a size; more than two measurements.

    Args:
        sizes: of at least two values; of four with `fixed`.
        costs: what was measured at each, over 0.
        fixed: whether a fixed cost is fitted as well. Without it, one makes the exponent too small, and what is told of
            larger sizes too little.
    """
    from scipy import optimize, stats

    x, y = np.log(np.asarray(sizes, dtype=float)), np.log(np.asarray(costs, dtype=float))
    exponent, constant = np.polyfit(x, y, 1)
    parameters = [float(constant), float(exponent)]
    if fixed:
        # From a linear cost with half of the least one as the fixed part.
        start = [float((y - x)[-1]), 1.0, float(y.min()) - math.log(2)]
        found = optimize.least_squares(lambda at: _law(x, *at) - y, start, lambda at: _slopes(x, *at)).x
        if math.exp(found[2] - float(y.min())) > _NO_FIXED:
            parameters = [float(value) for value in found]
    slopes = _slopes(x, *parameters)
    free = len(x) - len(parameters)
    error = math.sqrt(float(((y - _law(x, *parameters)) ** 2).sum()) / free)
    covariance = error**2 * np.linalg.inv(slopes.T @ slopes)
    quantile = float(stats.t.ppf((1 + _LEVEL) / 2, free))
    half = quantile * math.sqrt(float(covariance[1, 1]))
    base = math.exp(parameters[2]) if len(parameters) > 2 else 0.0
    return Growth(
        exponent=parameters[1],
        low=parameters[1] - half,
        high=parameters[1] + half,
        constant=math.exp(parameters[0]),
        fixed=base,
        measured=len(x),
        _covariance=covariance,
        _error=error,
        _quantile=quantile,
    )


def _law(x: NDArray[np.float64], *parameters: float) -> NDArray[np.float64]:
    """Return the logarithm of the cost at each logarithm of a size."""
    grows = parameters[0] + parameters[1] * x
    return grows if len(parameters) == 2 else np.logaddexp(grows, parameters[2])


def _slopes(x: NDArray[np.float64], *parameters: float) -> NDArray[np.float64]:
    """Return the derivatives of the law by its parameters, (sizes, parameters)."""
    share = np.ones_like(x)
    if len(parameters) > 2:
        share = np.exp(parameters[0] + parameters[1] * x - _law(x, *parameters))
    columns = [share, share * x, *([1 - share] if len(parameters) > 2 else [])]
    return np.stack(columns, axis=1)
