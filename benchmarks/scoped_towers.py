"""What does a tower of one's own gain over the common one? Trained on first questions, scored on later ones.

    python benchmarks/scoped_towers.py --data locomo10.json --work DIR --json result.json
    python benchmarks/scoped_towers.py --data sample --base starter --work DIR

Conversations are played through a real Mem0 with an encoder (``--base``), one owner each. Towers learn from the
outcomes of the first part of each conversation's questions (``--share``), and are scored on the later part (categories
1-4, encoder alone): none, the common tower of all conversations, and each conversation's own. Every training's result
is kept in ``--work``, so that an interrupted run continues where it was.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

os.environ.setdefault("MEM0_TELEMETRY", "False")

from hins_memory.errors import ConfigError
from hins_memory.evaluation import paired_bootstrap
from parts.common.command import exit_status
from parts.common.results import write_result
from parts.common.screen import show_table, stage
from parts.datasets.locomo import Conversation
from parts.training.modes import K, code_digest
from parts.training.scoped import Training, run_training, untrained
from parts.training.tower_command import conversations_of, played, tower_parser
from parts.training.towers import Split

if TYPE_CHECKING:
    import argparse

    from numpy.typing import NDArray

_QUICK_QUESTIONS = 100
_COLUMNS = ["conversation", "later questions", "examples", "none", "common", "own", "own - common", "own - none"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit status."""
    parser = tower_parser(str(__doc__).splitlines()[0], seeds=3)
    arguments = parser.parse_args(argv)
    return exit_status(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> None:
    if not 0 < arguments.share < 1 or arguments.seeds < 1:
        raise ConfigError("--share is over 0 and below 1, --seeds at least 1.", "Correct them.")
    with tempfile.TemporaryDirectory(prefix="hins-scoped-") as scratch:
        _compare(arguments, arguments.work or Path(scratch))


def _compare(arguments: argparse.Namespace, work: Path) -> None:
    data = conversations_of(arguments, work)
    if arguments.quick:
        data = [replace(one, questions=one.questions[:_QUICK_QUESTIONS]) for one in data[:2]]
        arguments.seeds = 1
    rows = _rows(data, arguments, work)
    figures = _figures(rows, arguments.memories)
    shown = [[row[name] for name in ("conversation", "questions", "examples")] + _means(row) for row in rows]
    show_table(f"nDCG@{K} points on later questions, documents by {arguments.base}", _COLUMNS, shown)
    for name, value in figures.items():
        stage(f"{name}: {value:.1f}")
    settings = {name: value for name, value in vars(arguments).items() if name not in ("json", "work")}
    write_result(arguments.json, figures, rows, settings | {"code": code_digest()})


def _rows(data: Sequence[Conversation], arguments: argparse.Namespace, work: Path) -> list[dict[str, Any]]:
    """Return a row for each conversation: scores of its later questions in points, means over the seeds."""
    split = Split(arguments.share)
    base, traffic = played(data, arguments, work)
    seeds = range(arguments.seed, arguments.seed + arguments.seeds)

    def trained(conversations: Sequence[Conversation]) -> list[dict[str, Any]]:
        return [
            run_training(Training(traffic, tuple(conversations), split, seed, arguments.quick), base, work)
            for seed in seeds
        ]

    common = trained(data)
    rows = []
    for one in data:
        own = trained([one])
        none = untrained(traffic, one, split, base)
        # A conversation with too few questions has no tower of its own: the common one serves it.
        own_scores = [
            run["ndcg"].get(one.id) or shared["ndcg"][one.id] for run, shared in zip(own, common, strict=True)
        ]
        scores = {"none": [none], "common": [run["ndcg"][one.id] for run in common], "own": own_scores}
        rows.append(
            {
                "conversation": one.id,
                "questions": len(none),
                "examples": own[0]["examples"],
                "trained": bool(own[0]["ndcg"]),
                "seconds": max(run["seconds"] for run in own),
                **{name: (100 * np.mean(values, axis=0)).tolist() for name, values in scores.items()},
            }
        )
    return rows


def _means(row: dict[str, Any]) -> list[float | None]:
    if not row["questions"]:
        return [None] * 5
    none, common, own = (float(np.mean(row[name])) for name in ("none", "common", "own"))
    return [none, common, own, own - common, own - none]


def _figures(rows: Sequence[dict[str, Any]], memories: str) -> dict[str, float]:
    """Return means over all later questions, and gains with their 95% intervals."""

    def scores(name: str) -> NDArray[np.float64]:
        return np.concatenate([np.asarray(row[name], dtype=np.float64) for row in rows])

    found = {name: float(scores(name).mean()) for name in ("none", "common", "own")}
    for name, one, other in (
        ("own_over_common", "own", "common"),
        ("own_over_none", "own", "none"),
        ("common_over_none", "common", "none"),
    ):
        gain = paired_bootstrap(scores(one), scores(other))
        found |= {name: gain.difference, f"{name}_low": gain.low, f"{name}_high": gain.high}
    asked = [row for row in rows if row["questions"]]
    found["better_than_common"] = float(sum(np.mean(row["own"]) > np.mean(row["common"]) for row in asked))
    found["without_an_own_tower"] = float(sum(not row["trained"] for row in rows))
    found["train_seconds_max"] = max(row["seconds"] for row in rows)
    return {f"{memories}_scoped_{name}": value for name, value in found.items()}


if __name__ == "__main__":
    sys.exit(main())
