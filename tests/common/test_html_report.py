"""Report pages: whole, self-contained, and safe whatever a user typed."""

from __future__ import annotations

import math
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hins_memory.common.html import Section, Series, bar_chart, histogram, line_chart, page, table, write_page

_VOID = {"meta", "link", "br"}


class _Checker(HTMLParser):
    """Collects tags and text, and sees that every tag is closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def _parsed(text: str) -> _Checker:
    checker = _Checker()
    checker.feed(text)
    checker.close()
    assert checker.open == []
    return checker


def test_a_page_is_self_contained_and_well_formed() -> None:
    sections = [
        Section("Lines", (line_chart("Loss", [Series("train", [3.0, 2.0, 1.5])], "step", "loss"),)),
        Section("Bars", (bar_chart("Gain", ["a", "b"], [Series("stock", [1, 2]), Series("hins", [2, -3])]),)),
        Section("Scores", (histogram("Cosine", [Series("before", [0.1, 0.2, 0.2])]), "plain text")),
        Section("Table", (table(["name", "value"], [["x", 1.25], ["y", None], ["z", 3]]),)),
    ]
    found = _parsed(page("A report", sections))
    assert found.tags.count("svg") == 3
    assert "script" not in found.tags
    assert found.sources == ["data:,"]
    assert {"1.2", "–", "plain text"} <= set(found.texts)


@given(st.text())
def test_what_a_user_typed_is_text_and_nothing_else(typed: str) -> None:
    hostile = f"<script>alert(1)</script>{typed}"
    sections = [
        Section(
            hostile, (hostile, table([hostile], [[hostile]]), bar_chart(hostile, [hostile], [Series(hostile, [1])]))
        )
    ]
    found = _parsed(page(hostile, sections))
    assert "script" not in found.tags


@pytest.mark.parametrize("values", [[], [math.nan], [math.inf]])
def test_nothing_to_show_is_said(values: list[float]) -> None:
    assert "nothing to show" in line_chart("Loss", [Series("train", values)])
    assert "nothing to show" in histogram("Loss", [Series("train", values)])


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=20))
def test_every_finite_value_can_be_charted(values: list[float]) -> None:
    for chart in (
        line_chart("c", [Series("s", values)]),
        histogram("c", [Series("s", values)]),
        bar_chart("c", [str(place) for place in range(len(values))], [Series("s", values)]),
    ):
        assert "nan" not in chart.lower().replace("nance", "")
        _parsed(chart)


def test_a_page_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.html"
    write_page(path, "报告 \ud800", [Section("emoji 🦊", ("text",))])
    assert "报告" in path.read_text(encoding="utf-8")
    assert [one.name for one in path.parent.iterdir()] == ["report.html"]
