"""Packaged text against forgetting: questions that are trained on beside the examples, and texts that are kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

from hins_memory.data import packaged, read_rows
from hins_memory.data.seed_facts import seed_facts
from hins_memory.types import Positive, Scope, TieredExample

__all__ = ["general_texts", "memory_texts", "with_replay"]

_FILE = "replay.jsonl"
# Facts about people are told of these.
_NAMES = ("Amir", "Beatriz", "Chidi", "Dana", "Emeka", "Freya", "Goran", "Hana", "Ivan", "Jasmin", "Kofi", "Leila")


def with_replay(examples: Sequence[TieredExample], share: float, seed: int) -> list[TieredExample]:
    """Return the examples, followed by packaged ones of general retrieval.

    All of them were written for this project; none is in the set that `hins_memory.evaluation.general` scores.
    They have no negatives of their own. When more are wanted than there are, they are repeated.

    Args:
        examples: what is trained on; not changed, and their order is kept.
        share: how many are added, as a multiple of the number of examples; 0 adds none.
        seed: seeds which ones are added.

    Raises:
        HinsError: the packaged file is missing or damaged.
    """
    wanted = round(share * len(examples))
    if not wanted:
        return list(examples)
    import numpy as np

    packaged_examples = _packaged()
    random = np.random.default_rng(seed)
    repeats = math.ceil(wanted / len(packaged_examples))
    order = [row for _ in range(repeats) for row in random.permutation(len(packaged_examples)).tolist()]
    return [*examples, *(packaged_examples[row] for row in order[:wanted])]


def general_texts() -> list[str]:
    """Return the texts of these questions and their passages, each once.

    Raises:
        HinsError: the packaged file is missing or damaged.
    """
    return list(dict.fromkeys(text for one in _packaged() for text in (one.positive.query, one.positive.text)))


def memory_texts() -> list[str]:
    """Return packaged facts about people and the questions about them, each once, under invented names.

    None of them is in what `hins_memory.evaluation.skills` scores.

    Raises:
        HinsError: the packaged file is missing or damaged.
    """
    found: dict[str, None] = {}
    told = [one for facts in seed_facts().values() for one in facts]
    for number, one in enumerate(told):
        names = _NAMES[number % len(_NAMES)], _NAMES[(number + 1) % len(_NAMES)]
        found |= dict.fromkeys(text.format(*names) for text in one.texts)
    return list(found)


@lru_cache(maxsize=1)
def _packaged() -> tuple[TieredExample, ...]:
    scope = Scope(user="replay")
    rows = read_rows(packaged(_FILE), "questions", ("query", "passage"))
    positives = [Positive(row["query"], f"r{n}", row["passage"], "replay", 1.0) for n, row in enumerate(rows)]
    return tuple(TieredExample(scope, _FILE, positive, ()) for positive in positives)
