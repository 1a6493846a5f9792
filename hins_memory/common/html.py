"""Self-contained HTML pages for reports: sections, tables and inline SVG charts, no scripts and nothing fetched.

Memories and queries are what users typed. Everything is written by the templates of this folder. They escape every
value and show control and invisible characters as their codes; a page tells the browser to run and fetch nothing.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup as Html

from hins_memory.common.printable import printable

__all__ = [
    "Html",
    "Section",
    "Series",
    "bar_chart",
    "histogram",
    "line_chart",
    "page",
    "paragraph",
    "table",
    "templates",
    "write_page",
]

_COLORS = ("#2563eb", "#f97316", "#16a34a", "#9333ea", "#dc2626", "#0891b2", "#a16207", "#475569")
_WIDTH, _HEIGHT = 640, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 28, 44
_GRID, _BASE = "#e2e8f0", "#64748b"
# From the first on, numbers are shown in scientific notation; values beyond the second are not drawn.
_PLAIN, _LARGEST = 1e15, 1e100


@dataclass(frozen=True, slots=True)
class Section:
    """A heading with its content, in order; a plain `str` is escaped as a paragraph."""

    title: str
    content: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Series:
    """A named line of points, or a named group of bars (then `x` is not used)."""

    name: str
    y: Sequence[float]
    x: Sequence[float] = ()


@functools.cache
def templates(package: str = "hins_memory.common") -> Environment:
    """Return the templates of a package, beside those here: every value is escaped, and shown as `printable` does.

    Args:
        package: with a folder ``templates``.
    """
    return Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("hins_memory.common")]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: printable(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _rendered(template: str, values: Mapping[str, Any]) -> Html:
    return Html(templates().get_template(template).render(values))


def page(title: str, sections: Sequence[Section]) -> str:
    """Return a whole HTML page, which can be encoded as UTF-8."""
    rendered = [
        {
            "title": section.title,
            "parts": [part if isinstance(part, Html) else paragraph(part) for part in section.content],
        }
        for section in sections
    ]
    return f"{_rendered('page.html', {'title': title, 'sections': rendered})}\n"


def write_page(path: Path, title: str, sections: Sequence[Section]) -> None:
    """Write a page to a file, whole or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(page(title, sections), encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def paragraph(text: str) -> Html:
    """Return a paragraph; line breaks are kept."""
    return _rendered("paragraph.html", {"lines": text.replace("\r\n", "\n").split("\n")})


def table(headers: Sequence[str], rows: Sequence[Sequence[object]], digits: int = 1) -> Html:
    """Return a table.

    Args:
        headers: the columns' titles.
        rows: the cells; floats are shown with `digits` decimals, None as a dash, the rest by `str`.
        digits: decimals of floats.
    """
    return _rendered(
        "table.html", {"headers": headers, "rows": [[_cell(value, digits) for value in row] for row in rows]}
    )


def _cell(value: object, digits: int) -> dict[str, Any]:
    if isinstance(value, float):
        if not math.isfinite(value):
            return {"text": "–", "number": False}
        return {"text": f"{value:.{digits}f}" if abs(value) < _PLAIN else f"{value:.4g}", "number": True}
    if isinstance(value, int) and not isinstance(value, bool):
        return {"text": str(value), "number": True}
    text = "–" if value is None else value if isinstance(value, Html) else str(value)
    return {"text": text, "number": False}


def line_chart(title: str, series: Sequence[Series], x_label: str = "", y_label: str = "") -> Html:
    """Return a line chart; points that are not finite, or beyond 1e100, are left out.

    Args:
        title: the caption.
        series: lines with `x` and `y` of equal length; without `x`, points are numbered from 1.
        x_label: what the horizontal axis shows, with its unit.
        y_label: what the vertical axis shows, with its unit.
    """
    lines = []
    for item in series:
        x = item.x or range(1, len(item.y) + 1)
        points = [(float(a), float(b)) for a, b in zip(x, item.y, strict=True) if _shown(a) and _shown(b)]
        lines.append((item.name, points))
    all_points = [point for _, points in lines for point in points]
    if not all_points:
        return paragraph(f"{title}: nothing to show.")
    x_axis = _Axis.over([x for x, _ in all_points], _LEFT, _WIDTH - _RIGHT)
    y_axis = _Axis.over([y for _, y in all_points], _HEIGHT - _BOTTOM, _TOP)
    polylines, dots = [], []
    for number, (_, points) in enumerate(lines):
        places = [(_pixel(x_axis.place(x)), _pixel(y_axis.place(y))) for x, y in points]
        polylines.append({"color": _color(number), "points": " ".join(f"{x},{y}" for x, y in places)})
        if len(places) == 1:
            dots.append({"x": places[0][0], "y": places[0][1], "color": _color(number)})
    chart = _grid(x_axis, y_axis, x_label, y_label) | {"lines": polylines, "dots": dots}
    return _drawn(title, chart, [name for name, _ in lines])


def bar_chart(title: str, labels: Sequence[str], series: Sequence[Series], y_label: str = "") -> Html:
    """Return a chart of grouped bars; values that are not finite, or beyond 1e100, are left out.

    Args:
        title: the caption.
        labels: a label for each group.
        series: one bar a group each, `y` as long as `labels`.
        y_label: what the bars show, with its unit.
    """
    values = [float(value) for item in series for value in item.y if _shown(value)]
    if not values or not labels:
        return paragraph(f"{title}: nothing to show.")
    y_axis = _Axis.over([0.0, *values], _HEIGHT - _BOTTOM, _TOP)
    chart = _grid(None, y_axis, "", y_label)
    width = (_WIDTH - _LEFT - _RIGHT) / len(labels)
    thickness = 0.8 * width / len(series)
    base = y_axis.place(0.0)
    bars = []
    for group, label in enumerate(labels):
        left = _LEFT + group * width
        chart["labels"].append(_label(left + width / 2, _HEIGHT - _BOTTOM + 16, label, "middle"))
        for number, item in enumerate(series):
            value = float(item.y[group])
            if not _shown(value):
                continue
            top = y_axis.place(value)
            bar = {"x": left + 0.1 * width + number * thickness, "y": min(top, base), "width": thickness}
            bar |= {"height": abs(base - top)}
            tip = f"{item.name}, {label}: {value:.4g}"
            bars.append({**{name: _pixel(size) for name, size in bar.items()}, "color": _color(number), "tip": tip})
    return _drawn(title, chart | {"bars": bars}, [item.name for item in series])


def histogram(title: str, series: Sequence[Series], x_label: str = "", bins: int = 40) -> Html:
    """Return the distribution of each series' `y`, as shares, over bins that all series have in common.

    Args:
        title: the caption.
        series: the values.
        x_label: what the values are, with their unit.
        bins: how many.
    """
    values = [float(value) for item in series for value in item.y if _shown(value)]
    if not values:
        return paragraph(f"{title}: nothing to show.")
    low, high = min(values), max(values)
    width = (high - low) / bins or 1.0
    lines = []
    for item in series:
        finite = [float(value) for value in item.y if _shown(value)]
        counts = [0] * bins
        for value in finite:
            counts[min(int((value - low) / width), bins - 1)] += 1
        middles = [low + (place + 0.5) * width for place in range(bins)]
        lines.append(Series(item.name, [100 * count / max(len(finite), 1) for count in counts], middles))
    return line_chart(title, lines, x_label, "share in %")


@dataclass(frozen=True, slots=True)
class _Axis:
    """Maps values from `low` to `high` to pixels from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    step: float

    @classmethod
    def over(cls, values: Sequence[float], start: float, end: float) -> _Axis:
        low, high = min(values), max(values)
        # A range below the values' own precision has no steps to draw.
        if high - low < 1e-9 * max(abs(low), abs(high), 1e-9):
            margin = max(abs(low), abs(high)) / 2
            margin = margin if margin > 1e-9 else 0.5
            low, high = low - margin, high + margin
        rough = (high - low) / 5
        magnitude = 10.0 ** math.floor(math.log10(rough))
        step = next(factor * magnitude for factor in (1, 2, 5, 10, 20) if factor * magnitude >= rough)
        return cls(math.floor(low / step) * step, math.ceil(high / step) * step, start, end, step)

    def place(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        return [self.low + number * self.step for number in range(round((self.high - self.low) / self.step) + 1)]


def _shown(value: float) -> bool:
    return math.isfinite(value) and abs(value) <= _LARGEST


def _color(number: int) -> str:
    return _COLORS[number % len(_COLORS)]


def _pixel(place: float) -> str:
    return f"{place:.1f}"


def _label(x: float, y: float, text: str, anchor: str) -> dict[str, str]:
    return {"x": _pixel(x), "y": _pixel(y), "text": text, "anchor": anchor}


def _grid(x_axis: _Axis | None, y_axis: _Axis, x_label: str, y_label: str) -> dict[str, Any]:
    """Return the lines and labels of a chart's axes, as chart.html draws them."""
    bottom = _HEIGHT - _BOTTOM
    rules = [{"y": _pixel(y_axis.place(value)), "color": _GRID} for value in y_axis.ticks()]
    rules.append({"y": _pixel(bottom), "color": _BASE})
    labels = [_label(_LEFT - 6, y_axis.place(value) + 4, f"{value:.4g}", "end") for value in y_axis.ticks()]
    if x_axis is not None:
        labels += [_label(x_axis.place(value), bottom + 16, f"{value:.4g}", "middle") for value in x_axis.ticks()]
    labels.append(_label((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 8, x_label, "middle"))
    labels.append(_label(_LEFT - 48, _TOP - 12, y_label, "start"))
    return {"rules": rules, "labels": labels, "lines": [], "dots": [], "bars": []}


def _drawn(title: str, chart: Mapping[str, Any], names: Sequence[str]) -> Html:
    legend = [{"color": _color(number), "name": name} for number, name in enumerate(names)]
    frame = {"width": _WIDTH, "height": _HEIGHT, "left": _LEFT, "right": _WIDTH - _RIGHT}
    return _rendered("chart.html", frame | {"chart": {**chart, "title": title, "legend": legend}})
