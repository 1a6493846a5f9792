"""Seed facts: packaged facts about people that are added to conversations, whose own facts are mostly trivial."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

from hins_memory.data import packaged, read_rows, reading

__all__ = ["Kind", "SeedFacts", "seed_facts"]

_FILE = "seed_facts.jsonl"
_PLACEHOLDER = re.compile(r"\{([01])\}")

#: `preference`: what a person likes, dislikes or needs; `event`: what happened to a person, or is true of them;
#: `thread`: several facts of one topic about two people, in order of time; `advice`: what an assistant answered a user;
#: `change`: facts that replace one another (hins_memory/synthesis/rules/changes.py).
Kind = Literal["preference", "event", "thread", "advice", "change"]


@dataclass(frozen=True, slots=True)
class SeedFacts:
    """Packaged facts of one topic; ``{0}`` and ``{1}`` stand for the names of the people.

    Attributes:
        kind: what they are about. For a preference or an event there are two facts of one topic, the second of which
            answers none of the questions; only a thread and a change have a second person, and advice has none.
        facts: as they are stored, in order of time.
        questions: each a text and the indexes in `facts` of all facts that answer it. The first one about a
            preference is in the first person.
    """

    kind: Kind
    facts: tuple[str, ...]
    questions: tuple[tuple[str, tuple[int, ...]], ...]

    @property
    def texts(self) -> tuple[str, ...]:
        """All texts: the facts and the questions."""
        return *self.facts, *(text for text, _ in self.questions)

    def facts_about(self, names: Sequence[str]) -> list[tuple[str, str]]:
        """Return the facts with the names of two people: (whom it is about, text); that is the first name in it."""
        return [(names[int(_PLACEHOLDER.findall(fact)[0])], fact.format(*names)) for fact in self.facts]

    def questions_about(self, names: Sequence[str]) -> list[tuple[str, tuple[int, ...]]]:
        """Return the questions about two people, with the indexes of the facts that answer them."""
        return [(text.format(*names), answers) for text, answers in self.questions]


@lru_cache(maxsize=1)
def seed_facts() -> dict[Kind, tuple[SeedFacts, ...]]:
    """Return the packaged facts of each kind.

    All of them were written for this project. Facts that the stock encoder ranks near the preferences of
    benchmarks/start.py are left out.

    Raises:
        HinsError: the packaged file is missing or damaged.
    """
    path = packaged(_FILE)
    rows = read_rows(path, "facts", ["kind"])
    with reading(path, "facts"):
        packaged_facts = [
            SeedFacts(
                row["kind"], tuple(row["facts"]), tuple((text, tuple(answers)) for text, answers in row["questions"])
            )
            for row in rows
        ]
    return {kind: tuple(one for one in packaged_facts if one.kind == kind) for kind in get_args(Kind)}
