"""Report pages: whole, self-contained, and safe whatever a user typed."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from nasty_texts import EVERYTHING, check_page, texts

from hins_memory.common.html import (
    Section,
    Series,
    bar_chart,
    histogram,
    line_chart,
    page,
    paragraph,
    table,
    write_page,
)

_VOID = {"meta", "link", "br"}


class _Checker(HTMLParser):
    """Collects tags and text, and sees that every tag is closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.sources: list[str] = []
        self.names: set[tuple[str, str]] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.names |= {(tag, name) for name, _ in attrs}
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


def _everywhere(text: str) -> str:
    """Return a page with a text in every place where one may stand."""
    charts = (
        bar_chart(text, [text], [Series(text, [1])], text),
        line_chart(text, [Series(text, [1, 2]), Series(text, [1])], text, text),
        histogram(text, [Series(text, [1, 2])], text),
        histogram(text, []),
    )
    return page(text, [Section(text, (text, paragraph(text), table([text, text], [[text, Path(text)]]), *charts))])


_FRAME = _parsed(_everywhere("x"))


@given(texts)
@hypothesis_settings(deadline=None)
@pytest.mark.slow
def test_what_a_user_typed_is_text_and_nothing_else(typed: str) -> None:
    text = _everywhere(typed)
    found = _parsed(text)
    # No element, attribute or address comes of a text.
    assert [tag for tag in found.tags if tag != "br"] == _FRAME.tags
    assert found.sources == ["data:,"]
    assert found.names == _FRAME.names
    check_page(text)


def test_a_page_runs_and_fetches_nothing() -> None:
    text = _everywhere(EVERYTHING)
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    assert f'content="{policy}"' in text
    assert "{{ 7*7 }}" in text
    assert r"\x1b]0;title\x07" in text


def test_a_template_knows_every_name_that_it_uses() -> None:
    from jinja2 import UndefinedError

    from hins_memory.common.html import _rendered

    with pytest.raises(UndefinedError):
        _rendered("table.html", {"headers": []})


@pytest.mark.parametrize("values", [[], [math.nan], [math.inf]])
def test_nothing_to_show_is_said(values: list[float]) -> None:
    assert "nothing to show" in line_chart("Loss", [Series("train", values)])
    assert "nothing to show" in histogram("Loss", [Series("train", values)])


@pytest.mark.slow
@given(st.lists(st.floats(-1e9, 1e9) | st.floats(), min_size=1, max_size=20))
@hypothesis_settings(deadline=None)
def test_every_value_can_be_charted(values: list[float]) -> None:
    for chart in (
        line_chart("c", [Series("s", values)]),
        histogram("c", [Series("s", values)]),
        bar_chart("c", [str(place) for place in range(len(values))], [Series("s", values)]),
    ):
        assert not {"nan", "inf"} & set(re.findall(r"[a-z]+", chart))
        _parsed(chart)


def test_a_page_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.html"
    write_page(path, "报告 \ud800", [Section("emoji 🦊", ("text",))])
    assert "报告" in path.read_text(encoding="utf-8")
    assert [one.name for one in path.parent.iterdir()] == ["report.html"]
