"""Facts that replace one another: what holds now, what held before, and the same of another person."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from random import Random

from hins_memory.data import packaged, read_rows, reading
from hins_memory.data.seed_facts import SeedFacts

__all__ = ["Change", "changes"]

_FILE = "changes.jsonl"
_WORDINGS = ("first", "then", "now", "before", "began")
# Of three changes two have all three states; half of them begin with their day, as agents store memories.
_THREE, _DATED = 0.67, 0.5
_FIRST_YEAR = 2018


@dataclass(frozen=True, slots=True)
class Change:
    """One kind of thing that changes in a life, e.g. where a person lives.

    Attributes:
        values: what it can be.
        first: wordings of the first state; ``{0}`` is the person, ``{v}`` the value.
        then: wordings of a later state; ``{old}`` is the value before it.
        now: questions about the last state.
        before: questions about the state before it.
        began: questions about the first of three states.
    """

    values: tuple[str, ...]
    first: tuple[str, ...]
    then: tuple[str, ...]
    now: tuple[str, ...]
    before: tuple[str, ...]
    began: tuple[str, ...]

    def seed(self, rng: Random) -> SeedFacts:
        """Return states of two people with questions about the first one's, drawn by `rng`."""
        count = 3 if rng.random() < _THREE else 2
        *values, others = rng.sample(self.values, count + 1)
        facts = [rng.choice(self.first).replace("{v}", values[0])]
        wordings = rng.sample(self.then, count - 1)
        for old, value, wording in zip(values, values[1:], wordings, strict=False):
            facts.append(wording.replace("{v}", value).replace("{old}", old))
        questions = [(rng.choice(self.now), (count - 1,)), (rng.choice(self.before), (count - 2,))]
        if count == 3:
            questions.append((rng.choice(self.began), (0,)))
        facts.append(rng.choice(self.first).replace("{v}", others).replace("{0}", "{1}"))
        if rng.random() < _DATED:
            facts = [f"{day} {fact}" for day, fact in zip(_days(len(facts), rng), facts, strict=True)]
        return SeedFacts("change", tuple(facts), tuple(questions))


def _days(count: int, rng: Random) -> list[str]:
    """Return days in order of time, as agents write them before a memory."""
    months = sorted(rng.sample(range(12 * 8), count))
    return [f"[{_FIRST_YEAR + month // 12}-{month % 12 + 1:02}-{rng.randint(1, 28):02}]" for month in months]


@lru_cache(maxsize=1)
def changes() -> tuple[Change, ...]:
    """Return the packaged kinds of change.

    Raises:
        HinsError: the packaged file is missing or damaged.
    """
    path = packaged(_FILE)
    rows = read_rows(path, "changes", [])
    with reading(path, "changes"):
        return tuple(Change(tuple(row["values"]), *(tuple(row[name]) for name in _WORDINGS)) for row in rows)
