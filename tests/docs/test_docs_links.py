"""Links within the documentation lead somewhere, and pages are told of where readers look."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
from pages import PAGES, ROOT, anchors, links, name_of


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_relative_links_lead_to_files_and_headings(page: Path) -> None:
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{name_of(page)} links to {link}"
        assert target.is_relative_to(ROOT), f"{name_of(page)} links out of the repository: {link}"
        if anchor:
            assert anchor in anchors(target), f"{name_of(page)} links to {link}, and there is no such heading"


def test_the_navigation_has_every_page_once() -> None:
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    told = re.findall(r"(\S+\.md)$", config.split("\nnav:\n")[1], re.MULTILINE)
    there = [page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")]
    # tools/site/hook.py adds the decisions.
    there = [page for page in there if not page.startswith("decisions/0")]
    assert sorted(told) == sorted([*there, "changelog.md", "contributing.md", "security.md"])


def test_the_figures_are_what_the_tool_draws_and_name_every_room() -> None:
    tool = runpy.run_path(str(ROOT / "tools" / "site" / "figures.py"))
    for name, draw in tool["FIGURES"].items():
        figure = (ROOT / "docs" / "assets" / name).read_text(encoding="utf-8")
        assert figure == draw(), "run: python tools/site/figures.py"
    drawn = {room for rooms, _ in tool["ROOMS"] for room in rooms}
    rooms = {path.name for path in (ROOT / "hins_memory").iterdir() if (path / "__init__.py").exists()}
    assert rooms - drawn == set(), "put them into ROOMS of tools/site/figures.py"
