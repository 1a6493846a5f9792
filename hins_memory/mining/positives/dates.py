"""Absolute dates in an answer, and how near they are to the time of a memory."""

from __future__ import annotations

import math
import re
from datetime import date, datetime, timezone

__all__ = ["DateRange", "closeness", "dates_in"]

#: Days since 0001-01-01 of the middle of a date, and the half width in days: 0 for a day, 15 for a month.
DateRange = tuple[int, int]

_MONTH_NAMES = "january february march april may june july august september october november december"
_MONTHS = {name[:length]: number for number, name in enumerate(_MONTH_NAMES.split(), 1) for length in (3, 4, len(name))}
_NAME = r"([a-z]{3,9})\.?"
_DAY = r"(\d{1,2})(?:st|nd|rd|th)?"
_DAY_MONTH_YEAR = re.compile(rf"\b{_DAY}(?: of)? {_NAME},? (\d{{4}})\b")
_MONTH_DAY_YEAR = re.compile(rf"\b{_NAME} {_DAY},? (\d{{4}})\b")
_ISO = re.compile(r"\b(\d{4})-(\d{2})-(\d{2})\b")
_MONTH_YEAR = re.compile(rf"\b{_NAME},? (\d{{4}})\b")
# Decay of closeness, in days: people often tell later what happened "yesterday" or "last week".
_DECAY_DAYS = 4.0


def dates_in(text: str) -> tuple[DateRange, ...]:
    """Return the absolute dates that a text names; months only where it names no day. Years alone are too wide."""
    text = text[:2000].lower()
    parts = [(year, _MONTHS.get(month, 0), day) for day, month, year in _DAY_MONTH_YEAR.findall(text)]
    parts += [(year, _MONTHS.get(month, 0), day) for month, day, year in _MONTH_DAY_YEAR.findall(text)]
    parts += [(year, int(month), day) for year, month, day in _ISO.findall(text)]
    days = tuple((_ordinal(int(year), month, int(day)), 0) for year, month, day in parts)
    valid = tuple(day for day in days if day[0])
    if valid:
        return valid
    months = [(_ordinal(int(year), _MONTHS.get(month, 0), 15), 15) for month, year in _MONTH_YEAR.findall(text)]
    return tuple(month for month in months if month[0])


def _ordinal(year: int, month: int, day: int) -> int:
    try:
        return date(year, month, day).toordinal()
    except ValueError:
        return 0


def closeness(dates: tuple[DateRange, ...], time: float) -> float:
    """Return how near a moment is to the nearest of the dates: 1 within it, falling towards 0 over some days.

    Args:
        dates: what `dates_in` found.
        time: seconds since the Unix epoch (UTC).
    """
    if not dates:
        return 0.0
    try:
        moment = datetime.fromtimestamp(time, tz=timezone.utc).toordinal()
    except (OverflowError, OSError, ValueError):
        return 0.0
    return max(math.exp(-max(0, abs(moment - middle) - half) / _DECAY_DAYS) for middle, half in dates)
