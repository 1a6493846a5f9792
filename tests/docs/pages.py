"""The pages of the documentation, as tests read them: links, headings and fenced blocks."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")),
    ]
)
_FENCE = re.compile(r"^( *)```([\w+-]*)[^\n]*\n(.*?)^\1```[ \t]*$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^)\s]+)(?: \"[^\"]*\")?\)")


def name_of(page: Path) -> str:
    """Return the page's path in the repository, for the names of tests."""
    return page.relative_to(ROOT).as_posix()


@dataclass(frozen=True)
class Block:
    """A fenced block: language, text, the line on which the text begins, and whether it is not to be run."""

    language: str
    text: str
    line: int
    skipped: bool


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            found[2],
            textwrap.dedent(found[3]),
            text.count("\n", 0, found.start(3)) + 1,
            text[: found.start()].endswith("<!-- not run -->\n"),
        )
        for found in _FENCE.finditer(text)
    ]


def _prose(page: Path) -> str:
    return re.sub(r"`[^`\n]*`", "", _FENCE.sub("", page.read_text(encoding="utf-8")))


def links(page: Path) -> list[str]:
    """Return what the page links to, images included, without what is in code."""
    return _LINK.findall(_prose(page))


def anchors(page: Path) -> set[str]:
    """Return the anchors of the page's headings, as MkDocs and the usual hosts of repositories make them."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ +(.*?) *$", text, re.MULTILINE)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}
