"""A part of the packaged texts that gates and trainings measure by: else every test would embed thousands of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from hins_memory.evaluation import EvalSet, skill_sets
from hins_memory.evaluation.general import load_general
from hins_memory.evaluation.skills import Half

__all__ = ["take_few"]

_SKILLS = ("preference", "update")
_PEOPLE = 2
#: of the general set's queries
_EVERY = 6


def take_few(patch: pytest.MonkeyPatch) -> None:
    """Where all memory skills are meant, take two, of two people each, and of the general set a sixth.

    Modules that have the functions already keep the whole: those of the tests of the texts themselves.
    """
    patch.setattr("hins_memory.evaluation.skills.skill_names", lambda: _SKILLS)
    for module in ("hins_memory.evaluation", "hins_memory.training.auxiliary_data"):
        patch.setattr(f"{module}.skill_sets", _few_people)
    for module in ("hins_memory.evaluation.general", "hins_memory.training.auxiliary_data"):
        patch.setattr(f"{module}.load_general", _few_queries)


def _few_people(half: Half, skills: Sequence[str] | None = None, people: int | None = None) -> list[EvalSet]:
    return skill_sets(half, skills, min(people or _PEOPLE, _PEOPLE))


def _few_queries(half: Half | None = None) -> EvalSet:
    whole = load_general(half)
    queries = whole.queries[::_EVERY]
    names = {name for query in queries for name in query.relevant}
    # With the passages that do not answer.
    documents = {name: text for name, text in whole.documents.items() if name.removesuffix("d") in names}
    return replace(whole, documents=documents, queries=queries)
