"""The packaged memory skills: questions of one kind each over the memories of invented people.

A skill is one thing that a memory is asked: a single fact, several facts together, time and order, what holds now,
preferences, negation, who said something, and others. A mean over all of them hides what an encoder loses by learning
another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

from hins_memory.data import packaged, read_rows, reading
from hins_memory.errors import ConfigError
from hins_memory.evaluation.evaluate import EvalQuery, EvalSet

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.abc import Traversable

__all__ = ["Half", "skill_names", "skill_sets"]

#: ``choose`` is for choosing recipes and settings, ``judge`` for figures that are reported: one that was chosen by is
#: too good afterwards.
Half = Literal["choose", "judge"]

_FOLDER = "skills"
_SUFFIX = ".jsonl"


def skill_names() -> tuple[str, ...]:
    """Return the names of the packaged skills in alphabetical order.

    Raises:
        HinsError: the packaged folder is missing.
    """
    folder = packaged(_FOLDER)
    with reading(folder, "folder of skills"):
        names = [one.name for one in folder.iterdir()]
    return tuple(sorted(name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX)))


def skill_sets(half: Half, skills: Sequence[str] | None = None, people: int | None = None) -> list[EvalSet]:
    """Return one half of the packaged skills, an evaluation set for each owner of memories.

    The halves have no owner in common. Every query's group is its skill, so that `RankingScores.by_group` has the
    figures by skill.

    Args:
        half: ``choose`` to choose by, ``judge`` to report.
        skills: only these; None means all.
        people: at most this many people's memories for each skill; None means all of the half.

    Returns:
        Sets in the order of the skills and of their owners; each is named ``SKILL, OWNER``.

    Raises:
        ConfigError: there is no such half or skill.
        HinsError: a packaged file is missing or damaged.
    """
    if half not in get_args(Half):
        raise ConfigError(f"There is no half {half!r} of the skills.", f"Halves: {', '.join(get_args(Half))}.")
    known = skill_names()
    if unknown := sorted({*(skills or ())} - {*known}):
        raise ConfigError(f"There is no skill {unknown[0]!r}.", f"Skills: {', '.join(known)}.")
    chosen = known if skills is None else tuple(dict.fromkeys(skills))
    return [one for skill in chosen for one in _read(packaged(_FOLDER) / f"{skill}{_SUFFIX}", skill, half)[:people]]


def _read(path: Traversable, skill: str, half: Half) -> list[EvalSet]:
    rows = read_rows(path, f"skill {skill}", ("owner", "half"))
    with reading(path, f"skill {skill}"):
        return [_owner(row, skill) for row in rows if row["half"] == half]


def _owner(row: dict[str, Any], skill: str) -> EvalSet:
    names = [f"m{number:02d}" for number in range(len(row["memories"]))]
    queries = [
        EvalQuery(text, frozenset(names[number] for number in numbers), group=skill)
        for text, numbers in row["questions"]
    ]
    return EvalSet(f"{skill}, {row['owner']}", dict(zip(names, row["memories"], strict=True)), tuple(queries))
