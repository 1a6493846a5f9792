"""Packaged questions that are trained on beside the examples, so that what the encoder could do before is kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

from hins_memory.data import packaged, read_rows
from hins_memory.types import Positive, Scope, TieredExample

__all__ = ["with_replay"]

_FILE = "replay.jsonl"


def with_replay(examples: Sequence[TieredExample], share: float, seed: int) -> list[TieredExample]:
    """Return examples with packaged ones of general retrieval behind them.

    All of them were written for this project; none is in the set that `hins_memory.evaluation.general` scores.
    They have no negatives of their own. Where more are wanted than there are, they come several times.

    Args:
        examples: what is to be learned; stays as it is, in its order.
        share: how many are added, relative to the number of examples; 0 adds none.
        seed: seeds which ones are added.

    Raises:
        HinsError: the packaged file is missing or damaged.
    """
    wanted = round(share * len(examples))
    if not wanted:
        return list(examples)
    import numpy as np

    known = _packaged()
    draw = np.random.default_rng(seed)
    order = [row for _ in range(math.ceil(wanted / len(known))) for row in draw.permutation(len(known)).tolist()]
    return [*examples, *(known[row] for row in order[:wanted])]


@lru_cache(maxsize=1)
def _packaged() -> tuple[TieredExample, ...]:
    scope = Scope(user="replay")
    rows = read_rows(packaged(_FILE), "questions", ("query", "passage"))
    positives = [Positive(row["query"], f"r{n}", row["passage"], "replay", 1.0) for n, row in enumerate(rows)]
    return tuple(TieredExample(scope, _FILE, positive, ()) for positive in positives)
