"""Packaged preferences, written by hand, to be planted among extracted facts: small talk has few of them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache

from hins_memory.data import packaged, read_rows

__all__ = ["Preference", "preferences"]

_FILE = "preferences.jsonl"


@dataclass(frozen=True, slots=True)
class Preference:
    """What somebody likes, dislikes or needs; ``{name}`` stands for who.

    Attributes:
        memory: as it is stored.
        own: asks for it in the first person, in other words.
        named: asks for it by the name, in other words.
        distractor: something else of the same topic, which answers neither.
    """

    memory: str
    own: str
    named: str
    distractor: str

    @property
    def texts(self) -> tuple[str, str, str, str]:
        """What is stored, memory and distractor, and what is asked."""
        return self.memory, self.distractor, self.own, self.named


@lru_cache(maxsize=1)
def preferences() -> tuple[Preference, ...]:
    """Return the packaged preferences.

    All of them were written for this project. What the stock encoder found near to the preferences that
    benchmarks/start.py scores was left out.

    Raises:
        HinsError: the packaged file is missing or damaged.
    """
    columns = [field.name for field in fields(Preference)]
    rows = read_rows(packaged(_FILE), "preferences", columns)
    return tuple(Preference(*(row[name] for name in columns)) for row in rows)
