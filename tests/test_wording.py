"""Comments, docstrings, messages and pages are plain English: "is not a", "at most N", "no other process"."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CODE = ("hins_memory", "adapters", "benchmarks", "tools", "examples", "docs")
# "there is no file" and "is no longer" are plain. "so many" leaves open how many; "nobody", "somebody" and "whoever"
# leave open who: a user, a process, another holder.
UNPLAIN = re.compile(
    r"(?<!there )\b(?:is|are|was|were) no (?!longer)|\bso many\b|\b(?:no|any|every|some)body\b|\bwhoever\b",
    re.IGNORECASE,
)
# Texts of prompts: other words would be other requests, which the replies on disk do not answer.
ALLOWED = {"- nobody yet", "preference (what somebody would like)"}


def unplain(text: str) -> list[str]:
    """Return the phrases that are to be said plainly; a sentence may go on in the next line."""
    for phrase in ALLOWED:
        text = text.replace(phrase, "")
    flat = re.sub(r"\s*\n[\s#]*", " ", text)
    return [flat[max(0, found.start() - 40) : found.end() + 40] for found in UNPLAIN.finditer(flat)]


def texts() -> list[Path]:
    """Return the sources of the code, and the pages; the changelog says what versions were like when they came out."""
    code = [path for folder in CODE for path in (ROOT / folder).rglob("*.py")]
    pages = [path for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")) if path.name != "CHANGELOG.md"]
    return sorted(path for path in (*code, *pages))


@pytest.mark.parametrize("path", texts(), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_words_are_plain(path: Path) -> None:
    assert unplain(path.read_text(encoding="utf-8")) == []


def test_what_is_not_plain_is_found() -> None:
    assert (
        len(unplain("# This is no\n# file. A b is no number.\n# at most so\n# many; nobody; Whoever was no user")) == 6
    )
    assert unplain("there is no file, There are no files, and it is no longer there; that is not a number") == []
