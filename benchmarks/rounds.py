"""What do rounds of towers forget? Five in a row, each with the traffic of other conversations.

    python benchmarks/rounds.py --data locomo10.json --work DIR --json result.json
    python benchmarks/rounds.py --data sample --rounds 4 --base starter --work DIR

Conversations are played through a real Mem0 with an encoder (``--base``), and come in groups, a group a round. A round
learns from the outcomes of the first part of their questions (``--share``). After each, the later questions of the
first round and of all rounds so far are scored (categories 1-4, encoder alone), and general retrieval. ``documents`` is
what the loop does: every tower begins as the documents' encoder and reads the whole log. To compare, with ``last`` it
begins as the tower before and reads what is new. Every round's result is kept in ``--work``, so that an interrupted run
continues where it was.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

os.environ.setdefault("MEM0_TELEMETRY", "False")

from hins_memory.encoders.encoder import Encoder
from hins_memory.errors import ConfigError
from hins_memory.evaluation import paired_bootstrap
from parts.common.command import exit_status
from parts.common.results import write_result
from parts.common.screen import show_table, stage
from parts.training.modes import K, code_digest
from parts.training.rounds import Chain, Start, groups_of, questions, run_round
from parts.training.tower_command import conversations_of, played, tower_parser
from parts.training.towers import Split

if TYPE_CHECKING:
    import argparse

    from numpy.typing import NDArray

_QUICK_QUESTIONS = 100
_COLUMNS = {
    "start": "begins as",
    "round": "round",
    "first": "first round's",
    "first_untrained": "untrained",
    "so_far": "all so far",
    "so_far_untrained": "untrained",
    "general": "general",
    "examples": "examples",
    "seconds": "train s",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit status."""
    parser = tower_parser(str(__doc__).splitlines()[0], seeds=1)
    parser.add_argument("--starts", nargs="+", choices=get_args(Start), default=list(get_args(Start)))
    parser.add_argument("--rounds", type=int, default=5, help="how many rounds (default 5)")
    arguments = parser.parse_args(argv)
    return exit_status(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="hins-rounds-") as scratch:
        _measure(arguments, arguments.work or Path(scratch))


def _measure(arguments: argparse.Namespace, work: Path) -> None:
    data = conversations_of(arguments, work)
    if arguments.quick:
        # Two conversations a round where they have few questions.
        count = 2 if all(len(one.questions) >= _QUICK_QUESTIONS for one in data[:2]) else 4
        data = [replace(one, questions=one.questions[:_QUICK_QUESTIONS]) for one in data[:count]]
        arguments.rounds, arguments.seeds = 2, 1
    if not 0 < arguments.share < 1 or arguments.seeds < 1 or not 2 <= arguments.rounds <= len(data):
        raise ConfigError(
            "--share is over 0 and below 1, --seeds at least 1, and each of at least 2 rounds has a conversation.",
            "Correct them.",
        )
    base, traffic = played(data, arguments, work)
    groups = groups_of(data, arguments.rounds)
    figures: dict[str, float] = {}
    rows: list[dict[str, Any]] = []
    for start in dict.fromkeys(arguments.starts):
        seeds = range(arguments.seed, arguments.seed + arguments.seeds)
        chains = [Chain(traffic, groups, Split(arguments.share), start, seed, arguments.quick) for seed in seeds]
        found, measured = _chain_rows(chains, base, work)
        rows += found
        figures |= {f"{arguments.memories}_rounds_{start}_{name}": value for name, value in measured.items()}
    show_table(
        f"nDCG@{K} points on later questions, documents by {arguments.base}",
        list(_COLUMNS.values()),
        [[row[name] for name in _COLUMNS] for row in rows],
    )
    for name, value in figures.items():
        stage(f"{name}: {value:.1f}")
    settings = {name: value for name, value in vars(arguments).items() if name not in ("json", "work")}
    write_result(arguments.json, figures, rows, settings | {"code": code_digest()})


def _chain_rows(chains: Sequence[Chain], base: Encoder, work: Path) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Return a row for each round, means over the seeds in points, and what the rounds did to the first questions."""
    count = len(chains[0].groups)
    *plain, plain_general = [100 * np.asarray(one) for one in questions(chains[0], base, count)]
    rows = []
    firsts: list[NDArray[np.float64]] = []
    for number in range(1, count + 1):
        runs = [run_round(chain, number, base, work) for chain in chains]
        rounds = [100 * np.mean([run["ndcg"][place] for run in runs], axis=0) for place in range(number)]
        firsts.append(rounds[0])
        rows.append(
            {
                "start": chains[0].start,
                "round": number,
                "first": float(rounds[0].mean()),
                "first_untrained": float(plain[0].mean()),
                "so_far": float(np.concatenate(rounds).mean()),
                "so_far_untrained": float(np.concatenate(plain[:number]).mean()),
                "own": float(rounds[-1].mean()),
                "general": 100 * float(np.mean([run["general"] for run in runs])),
                "general_untrained": float(plain_general.mean()),
                "questions": sum(map(len, rounds)),
                "examples": float(np.mean([run["examples"] for run in runs])),
                "seconds": max(run["seconds"] for run in runs),
                "first_questions": rounds[0].tolist(),
            }
        )
    change = paired_bootstrap(firsts[-1], firsts[0])
    last = rows[-1]
    figures = {
        "first_change": change.difference,
        "first_change_low": change.low,
        "first_change_high": change.high,
        "first_gain": last["first"] - last["first_untrained"],
        "so_far_gain": last["so_far"] - last["so_far_untrained"],
        "general_loss": last["general_untrained"] - last["general"],
        "train_seconds_max": max(row["seconds"] for row in rows),
    }
    return rows, figures


if __name__ == "__main__":
    sys.exit(main())
