"""Packaged facts about people, written by hand, to be planted among extracted ones: small talk has few alike."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

from hins_memory.data import packaged, read_rows

__all__ = ["Kind", "Planted", "planted"]

_FILE = "planted.jsonl"

#: `preference`: what somebody likes, dislikes or needs; `event`: what happened to somebody, or what holds of them.
Kind = Literal["preference", "event"]


@dataclass(frozen=True, slots=True)
class Planted:
    """A packaged fact about somebody; ``{name}`` stands for who.

    Attributes:
        kind: what it is about.
        memory: as it is stored.
        questions: ask for it in other words; the first one about a preference is in the first person.
        distractor: something else of the same topic, which answers neither.
    """

    kind: Kind
    memory: str
    questions: tuple[str, str]
    distractor: str

    @property
    def texts(self) -> tuple[str, ...]:
        """What is stored, memory and distractor, and what is asked."""
        return self.memory, self.distractor, *self.questions


@lru_cache(maxsize=1)
def planted() -> dict[Kind, tuple[Planted, ...]]:
    """Return the packaged facts of each kind.

    All of them were written for this project. What the stock encoder found near to the preferences that
    benchmarks/start.py scores was left out.

    Raises:
        HinsError: the packaged file is missing or damaged.
    """
    rows = read_rows(packaged(_FILE), "facts", ["kind", "memory", "first", "second", "distractor"])
    found = [Planted(row["kind"], row["memory"], (row["first"], row["second"]), row["distractor"]) for row in rows]
    return {kind: tuple(one for one in found if one.kind == kind) for kind in get_args(Kind)}
