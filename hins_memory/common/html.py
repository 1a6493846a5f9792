"""Self-contained HTML pages for reports: sections, tables and inline SVG charts, no scripts and nothing fetched.

Every text that comes in is escaped here, because memories and queries are what users typed.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

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
    "write_page",
]

_COLORS = ("#2563eb", "#f97316", "#16a34a", "#9333ea", "#dc2626", "#0891b2", "#a16207", "#475569")
_WIDTH, _HEIGHT = 640, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 28, 44
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1e293b; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2rem; border-bottom: 1px solid #e2e8f0; }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid #e2e8f0; text-align: left; vertical-align: top; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
figure { margin: 1rem 0; } figcaption { font-weight: 600; } svg { max-width: 100%; height: auto; }
.legend span { display: inline-block; margin-right: 1rem; } .legend i { display: inline-block; width: .8rem;
height: .8rem; margin-right: .3rem; } pre { white-space: pre-wrap; }
"""


class Html(str):
    """A text that is HTML already and is not escaped again."""

    __slots__ = ()


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


def page(title: str, sections: Sequence[Section]) -> str:
    """Return a whole HTML page."""
    body = [f"<h1>{escape(title)}</h1>"]
    for section in sections:
        inner = "\n".join(part if isinstance(part, Html) else paragraph(part) for part in section.content)
        body.append(f"<section>\n<h2>{escape(section.title)}</h2>\n{inner}\n</section>")
    head = (
        f'<meta charset="utf-8">\n<meta name="viewport" content="width=device-width">\n<title>{escape(title)}</title>'
        f'\n<link rel="icon" href="data:,">\n<style>{_STYLE}</style>'
    )
    content = "\n".join(body)
    return f'<!doctype html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n{content}\n</body>\n</html>\n'


def write_page(path: Path, title: str, sections: Sequence[Section]) -> None:
    """Write a page to a file, whole or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        # A lone surrogate in a user's text must not cost the page.
        half.write_bytes(page(title, sections).encode("utf-8", "replace"))
        half.replace(path)
    finally:
        half.unlink(missing_ok=True)


def paragraph(text: str) -> Html:
    """Return a paragraph; line breaks are kept."""
    return Html("<p>" + "<br>".join(escape(line) for line in text.splitlines()) + "</p>")


def table(headers: Sequence[str], rows: Sequence[Sequence[object]], digits: int = 1) -> Html:
    """Return a table.

    Args:
        headers: the columns' titles.
        rows: the cells; floats are shown with `digits` decimals, None as a dash, the rest by `str`.
        digits: decimals of floats.
    """
    top = "".join(f"<th>{escape(name)}</th>" for name in headers)
    lines = "\n".join("<tr>" + "".join(_cell(value, digits) for value in row) + "</tr>" for row in rows)
    return Html(f"<table>\n<thead><tr>{top}</tr></thead>\n<tbody>\n{lines}\n</tbody>\n</table>")


def _cell(value: object, digits: int) -> str:
    if isinstance(value, Html):
        return f"<td>{value}</td>"
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "<td>–</td>"
    if isinstance(value, float):
        return f'<td class="number">{value:.{digits}f}</td>'
    if isinstance(value, int) and not isinstance(value, bool):
        return f'<td class="number">{value}</td>'
    return f"<td>{escape(str(value))}</td>"


def line_chart(title: str, series: Sequence[Series], x_label: str = "", y_label: str = "") -> Html:
    """Return a line chart; points that are not finite are left out.

    Args:
        title: the caption.
        series: lines with `x` and `y` of equal length; without `x`, points are numbered from 1.
        x_label: what the horizontal axis shows, with its unit.
        y_label: what the vertical axis shows, with its unit.
    """
    lines = []
    for one in series:
        x = one.x or range(1, len(one.y) + 1)
        points = [(float(a), float(b)) for a, b in zip(x, one.y, strict=True) if math.isfinite(a) and math.isfinite(b)]
        lines.append((one.name, points))
    every = [point for _, points in lines for point in points]
    if not every:
        return paragraph(f"{title}: nothing to show.")
    x_axis = _Axis.over([x for x, _ in every], _LEFT, _WIDTH - _RIGHT)
    y_axis = _Axis.over([y for _, y in every], _HEIGHT - _BOTTOM, _TOP)
    parts = [_grid(x_axis, y_axis, x_label, y_label)]
    for number, (_, points) in enumerate(lines):
        path = " ".join(f"{x_axis.place(x):.1f},{y_axis.place(y):.1f}" for x, y in points)
        color = _COLORS[number % len(_COLORS)]
        parts.append(f'<polyline fill="none" stroke="{color}" stroke-width="2" points="{path}"/>')
        if len(points) == 1:
            left, top = path.split(",")
            parts.append(f'<circle cx="{left}" cy="{top}" r="3" fill="{color}"/>')
    return _figure(title, parts, [name for name, _ in lines])


def bar_chart(title: str, labels: Sequence[str], series: Sequence[Series], y_label: str = "") -> Html:
    """Return a chart of grouped bars.

    Args:
        title: the caption.
        labels: a label for each group.
        series: one bar a group each, `y` as long as `labels`.
        y_label: what the bars show, with its unit.
    """
    values = [float(value) for one in series for value in one.y if math.isfinite(value)]
    if not values or not labels:
        return paragraph(f"{title}: nothing to show.")
    y_axis = _Axis.over([0.0, *values], _HEIGHT - _BOTTOM, _TOP)
    parts = [_grid(None, y_axis, "", y_label)]
    width = (_WIDTH - _LEFT - _RIGHT) / len(labels)
    bar = 0.8 * width / len(series)
    base = y_axis.place(0.0)
    for place, label in enumerate(labels):
        left = _LEFT + place * width
        middle = left + width / 2
        parts.append(f'<text x="{middle:.1f}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle">{escape(label)}</text>')
        for number, one in enumerate(series):
            value = float(one.y[place])
            if not math.isfinite(value):
                continue
            top = y_axis.place(value)
            x = left + 0.1 * width + number * bar
            tip = f"<title>{escape(one.name)}, {escape(label)}: {value:.4g}</title>"
            parts.append(
                f'<rect x="{x:.1f}" y="{min(top, base):.1f}" width="{bar:.1f}" height="{abs(base - top):.1f}" '
                f'fill="{_COLORS[number % len(_COLORS)]}">{tip}</rect>'
            )
    return _figure(title, parts, [one.name for one in series])


def histogram(title: str, series: Sequence[Series], x_label: str = "", bins: int = 40) -> Html:
    """Return the distribution of each series' `y`, as shares, over bins that all series have in common.

    Args:
        title: the caption.
        series: the values.
        x_label: what the values are, with their unit.
        bins: how many.
    """
    values = [float(value) for one in series for value in one.y if math.isfinite(value)]
    if not values:
        return paragraph(f"{title}: nothing to show.")
    low, high = min(values), max(values)
    width = (high - low) / bins or 1.0
    lines = []
    for one in series:
        finite = [float(value) for value in one.y if math.isfinite(value)]
        counts = [0] * bins
        for value in finite:
            counts[min(int((value - low) / width), bins - 1)] += 1
        middles = [low + (place + 0.5) * width for place in range(bins)]
        lines.append(Series(one.name, [100 * count / max(len(finite), 1) for count in counts], middles))
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


def _grid(x_axis: _Axis | None, y_axis: _Axis, x_label: str, y_label: str) -> str:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    parts = []
    for value in y_axis.ticks():
        y = y_axis.place(value)
        parts.append(f'<line x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e2e8f0"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.4g}</text>')
    for value in x_axis.ticks() if x_axis else ():
        x = x_axis.place(value) if x_axis else 0.0
        parts.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{value:.4g}</text>')
    parts.append(f'<line x1="{_LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}" stroke="#64748b"/>')
    parts.append(f'<text x="{(_LEFT + right) / 2}" y="{_HEIGHT - 8}" text-anchor="middle">{escape(x_label)}</text>')
    parts.append(f'<text x="{_LEFT - 48}" y="{_TOP - 12}">{escape(y_label)}</text>')
    return "\n".join(parts)


def _figure(title: str, parts: Sequence[str], names: Sequence[str]) -> Html:
    legend = "".join(
        f'<span><i style="background:{_COLORS[number % len(_COLORS)]}"></i>{escape(name)}</span>'
        for number, name in enumerate(names)
    )
    svg = "\n".join(parts)
    return Html(
        f"<figure>\n<figcaption>{escape(title)}</figcaption>\n"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" role="img" aria-label="{escape(title)}" '
        f'font-size="12" fill="#334155">\n{svg}\n</svg>\n<div class="legend">{legend}</div>\n</figure>'
    )
