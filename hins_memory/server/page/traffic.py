"""Searches and outcomes over time, read from the log: counts and times, no texts and no names."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from hins_memory.database.engine import database_errors, reading
from hins_memory.database.tables import answers, feedback, retrievals
from hins_memory.types import now

__all__ = ["DAY", "Traffic", "by_day", "mean_by_day", "read_traffic"]

#: Seconds of a day.
DAY = 86_400.0
_DAYS = 30
# Rows that are looked at, the latest; what came before them in a month of more is left out of the chart.
_ROWS = 200_000


@dataclass(frozen=True, slots=True)
class Traffic:
    """Searches, answers and feedback of each of the last days, oldest first; `days` counts back to 0, today."""

    days: tuple[int, ...]
    searches: tuple[int, ...]
    answers: tuple[int, ...]
    feedback: tuple[int, ...]


def read_traffic(engine: sa.Engine) -> Traffic:
    """Return the traffic of the last 30 days, by the times of the events.

    Raises:
        LogError: the log cannot be read.
    """
    end = now()
    with database_errors(engine.url), reading(engine).connect() as connection:
        found = []
        for table in (retrievals, answers, feedback):
            latest = sa.select(table.c.time).order_by(table.c.seq.desc()).limit(_ROWS).subquery()
            window = sa.select(latest.c.time).where(latest.c.time > end - _DAYS * DAY)
            found.append(by_day(connection.execute(window).scalars(), end))
    days = tuple(range(1 - _DAYS, 1))
    counts = [tuple(counted[day] for day in days) for counted in found]
    return Traffic(days, *counts)


def by_day(times: Iterable[float], end: float) -> Counter[int]:
    """Return how many times fall on each day, counted back from 0, the last 24 hours; later ones count as today."""
    return Counter(min(0, math.floor((time - end) / DAY) + 1) for time in times)


def mean_by_day(values: Sequence[tuple[float, float]], end: float) -> tuple[list[float], list[float]]:
    """Return the days, counted back from 0, and the mean of each, of pairs of a time and a value."""
    sums: Counter[int] = Counter()
    totals: dict[int, float] = {}
    for time, value in values:
        day = min(0, math.floor((time - end) / DAY) + 1)
        sums[day] += 1
        totals[day] = totals.get(day, 0.0) + value
    days = sorted(totals)
    return [float(day) for day in days], [totals[day] / sums[day] for day in days]
