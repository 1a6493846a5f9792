"""Comments, docstrings and messages are plain English: "is not a", "at most N", "no other process"."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CORE = Path(__file__).resolve().parents[1] / "hins_memory"
# "there is no file" and "is no longer" are plain; "so many" and "nobody" leave open how many, and who.
UNPLAIN = re.compile(r"(?<!there )(?<!There )\bis no (?!longer)|\bso many\b|\bnobody\b")
# The text of a prompt: other words would be other requests, which no kept reply answers.
ALLOWED = {"- nobody yet"}


def unplain(text: str) -> list[str]:
    """Return the lines that are to be said plainly; a sentence may go on in the next line."""
    for phrase in ALLOWED:
        text = text.replace(phrase, "")
    flat = re.sub(r"\s*\n[\s#]*", " ", text)
    return [flat[max(0, found.start() - 40) : found.end() + 40] for found in UNPLAIN.finditer(flat)]


@pytest.mark.parametrize("path", sorted(CORE.rglob("*.py")), ids=lambda path: str(path.relative_to(CORE)))
def test_the_words_are_plain(path: Path) -> None:
    assert unplain(path.read_text(encoding="utf-8")) == []


def test_what_is_not_plain_is_found() -> None:
    assert len(unplain("# This is no\n# file. A b is no number.\n# at most so\n# many; nobody")) == 4
    assert unplain("there is no file, and it is no longer there; that is not a number") == []
