"""Packaged facts about people, to be planted among extracted ones: small talk gives few that agents would keep."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

from hins_memory.data import packaged, read_rows, reading

__all__ = ["Kind", "Planted", "planted"]

_FILE = "planted.jsonl"
_PLACEHOLDER = re.compile(r"\{([01])\}")

#: `preference`: what somebody likes, dislikes or needs; `event`: what happened to somebody, or what holds of them;
#: `thread`: what two people told of one topic, bit by bit.
Kind = Literal["preference", "event", "thread"]


@dataclass(frozen=True, slots=True)
class Planted:
    """Packaged facts of one topic; ``{0}`` and ``{1}`` stand for the names of those who have them.

    Attributes:
        kind: what they are about. A preference and an event are one fact and another of the same topic that answers
            neither of the questions; only a thread has a second person.
        facts: as they are stored, in order of time.
        questions: texts, and the places in `facts` of all that answer them. The first one about a preference is in the
            first person.
    """

    kind: Kind
    facts: tuple[str, ...]
    questions: tuple[tuple[str, tuple[int, ...]], ...]

    @property
    def texts(self) -> tuple[str, ...]:
        """What is stored and what is asked."""
        return *self.facts, *(text for text, _ in self.questions)

    def stored(self, names: Sequence[str]) -> list[tuple[str, str]]:
        """Return the facts of two people: whom each is about, the one named first, and its text."""
        return [(names[int(_PLACEHOLDER.findall(fact)[0])], fact.format(*names)) for fact in self.facts]

    def asked(self, names: Sequence[str]) -> list[tuple[str, tuple[int, ...]]]:
        """Return the questions about two people, with the places of the facts that answer them."""
        return [(text.format(*names), places) for text, places in self.questions]


@lru_cache(maxsize=1)
def planted() -> dict[Kind, tuple[Planted, ...]]:
    """Return the packaged facts of each kind.

    All of them were written for this project. What the stock encoder found near to the preferences that
    benchmarks/start.py scores was left out.

    Raises:
        HinsError: the packaged file is missing or damaged.
    """
    path = packaged(_FILE)
    rows = read_rows(path, "facts", ["kind"])
    with reading(path, "facts"):
        found = [
            Planted(row["kind"], tuple(row["facts"]), tuple((text, tuple(places)) for text, places in row["questions"]))
            for row in rows
        ]
    return {kind: tuple(one for one in found if one.kind == kind) for kind in get_args(Kind)}
