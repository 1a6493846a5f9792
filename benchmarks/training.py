"""How fast our trainer is, and how well it trains, beside sentence-transformers' own with its ranking loss.

    python benchmarks/training.py --data locomo10.json --json result.json
    python benchmarks/training.py --quick

All trainers get the same examples (query, positive, negatives), batches, steps, learning rate and schedule, and tune
all weights. Each trains in a process of its own, and they take turns, a few steps each, in one run. Speed is counted
in texts (all columns) per second from the second step on. Quality is nDCG@10 on conversations that are not trained on:
every fold is trained with every seed. Mixed precision is raced only where the processor has bfloat16. Without --data,
and with --quick, the packaged sample conversations are used.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hins_memory.encoders.encoder import Encoder
from hins_memory.errors import ConfigError
from hins_memory.evaluation import evaluate_encoder, paired_bootstrap
from hins_memory.mining import MineSettings
from hins_memory.training import TrainSettings
from parts.common.command import base_parser, exit_status
from parts.common.files import resolve_data
from parts.common.results import write_result
from parts.common.screen import show_table, stage
from parts.datasets.locomo import ANSWERABLE, LOCOMO, load_locomo
from parts.training.trainers import PEERS, Job, Runner, Split, child, hardware, locomo_splits, raced, sample_split

if TYPE_CHECKING:
    from numpy.typing import NDArray

_OURS, _PLAIN = "hins", "plain"
_RATE = 2e-5
_SAMPLES = 10_000
_NEGATIVES = MineSettings().negatives


@dataclass(frozen=True, slots=True)
class Shape:
    """How much is trained: queries a step, mined negatives a query, steps, and steps in a turn."""

    batch_size: int
    negatives: int
    steps: int
    slice_steps: int

    @property
    def texts(self) -> int:
        """Texts a step."""
        return self.batch_size * (2 + self.negatives)


@dataclass(slots=True)
class Found:
    """What one trainer did: seconds a step of each turn (wall and processor), and nDCG of each question."""

    seconds: list[float]
    cpu: list[float]
    ndcg: list[NDArray[np.float64]]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit status."""
    defaults = TrainSettings()
    parser = base_parser(str(__doc__).splitlines()[0])
    parser.add_argument("--data", type=Path, metavar="FILE", help="locomo10.json or a file of its format")
    parser.add_argument("--base", default="stock", metavar="DIR_OR_NAME", help="the encoder to train (default stock)")
    parser.add_argument("--folds", type=int, default=3, help="folds by conversation (default 3)")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds a fold, from --seed on (default 1)")
    parser.add_argument("--epochs", type=float, default=4.0, help="passes over the examples")
    parser.add_argument("--steps", type=int, help="steps, in the place of --epochs")
    parser.add_argument("--batch-size", type=int, default=defaults.batch_size, help="queries a step")
    parser.add_argument(
        "--negatives", type=int, default=_NEGATIVES, help=f"mined negatives a query, at most {_NEGATIVES}"
    )
    parser.add_argument("--slice", type=int, default=2, help="steps that a trainer takes in its turn (default 2)")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    return exit_status(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> None:
    if arguments.child:
        child(Job(**json.loads(arguments.child)))
        return
    if arguments.folds < 2 or arguments.seeds < 1:
        raise ConfigError(f"{arguments.folds} folds, {arguments.seeds} seeds.", "Use at least 2 folds and 1 seed.")
    if arguments.quick:
        arguments.batch_size, arguments.steps, arguments.slice = 8, 3, 1
        arguments.data, arguments.seeds = None, 1
    encoder = Encoder.load(arguments.base)
    splits = [sample_split(encoder)]
    if arguments.data is not None:
        encoder = Encoder(encoder.model, encoder.version, cache_size=100_000)
        splits = locomo_splits(load_locomo(resolve_data(arguments.data, LOCOMO)), arguments.folds, encoder)
    found = {peer: Found([], [], []) for peer in raced()}
    groups: list[str] = []
    for seed in range(arguments.seed, arguments.seed + arguments.seeds):
        for number, split in enumerate(splits):
            stage(f"seed {seed}, fold {number + 1}: {len(split.examples)} examples")
            groups += _compare(split, seed, found, arguments)
    stock = np.concatenate([evaluate_encoder(encoder, one.held_out, ks=(10,)).ndcg[10] for one in splits])
    figures, rows = _report(found, groups, np.tile(stock, arguments.seeds), _shape(splits[0], arguments))
    settings = {k: v for k, v in vars(arguments).items() if k not in ("json", "child")} | {"hardware": hardware()}
    write_result(arguments.json, figures, rows, settings)


def _shape(split: Split, arguments: argparse.Namespace) -> Shape:
    settings = TrainSettings(epochs=arguments.epochs, batch_size=arguments.batch_size, min_steps=1)
    steps = arguments.steps or settings.steps(len(split.examples))
    return Shape(arguments.batch_size, arguments.negatives, steps, arguments.slice)


def _compare(split: Split, seed: int, found: dict[str, Found], arguments: argparse.Namespace) -> tuple[str, ...]:
    """Train with every trainer, turn by turn, add what it did to `found`, and return the questions' groups."""
    shape = _shape(split, arguments)
    groups: tuple[str, ...] = ()
    with tempfile.TemporaryDirectory(prefix="hins-training-") as scratch:
        examples = Path(scratch) / "examples.pickle"
        examples.write_bytes(pickle.dumps(split.examples))
        jobs = [
            Job(
                peer,
                str(examples),
                str(Path(scratch) / peer),
                shape.steps,
                shape.slice_steps,
                shape.batch_size,
                shape.negatives,
                _RATE,
                seed,
                arguments.base,
            )
            for peer in found
        ]
        runners = [Runner(os.path.abspath(__file__), job) for job in jobs]
        try:
            _take_turns(runners)
        finally:
            for runner in runners:
                runner.close()
        for runner in runners:
            mine = found[runner.job.peer]
            mine.seconds += runner.seconds
            mine.cpu += runner.cpu
            scores = evaluate_encoder(Encoder.load(runner.job.folder), split.held_out, ks=(10,))
            mine.ndcg.append(scores.ndcg[10])
            groups = scores.groups
            speed = shape.texts * len(runner.seconds) / sum(runner.seconds)
            stage(f"  {runner.job.peer}: {speed:.0f} texts/s, nDCG@10 {100 * scores.ndcg[10].mean():.1f}")
    return groups


def _take_turns(runners: Sequence[Runner]) -> None:
    """Advance all trainings to their ends; who comes first changes from round to round."""
    place = 0
    while waiting := [runner for runner in runners if not runner.finished]:
        for offset in range(len(waiting)):
            waiting[(place + offset) % len(waiting)].advance()
        place += 1


def _report(
    found: dict[str, Found], groups: Sequence[str], stock: NDArray[np.float64], shape: Shape
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    rows = np.isin(np.asarray(groups), ANSWERABLE)
    ndcg = {peer: 100 * np.concatenate(one.ndcg)[rows] for peer, one in found.items()}
    figures: dict[str, float] = {"stock_ndcg10": 100 * float(stock[rows].mean())}
    table: list[dict[str, Any]] = []
    for peer, one in found.items():
        speed = shape.texts * len(one.seconds) / sum(one.seconds)
        row: dict[str, Any] = {
            "trainer": peer,
            "what": PEERS[peer],
            "texts_per_second": speed,
            "texts_per_cpu_second": shape.texts * len(one.cpu) / sum(one.cpu),
            "ndcg10": float(ndcg[peer].mean()),
            "turns": len(one.seconds),
            "steps": shape.steps,
            "texts_per_step": shape.texts,
        }
        table.append(row)
        figures |= {f"{peer}_texts_per_second": speed, f"{peer}_ndcg10": row["ndcg10"]}
        if peer == _OURS:
            continue
        suffix = "" if peer == _PLAIN else peer.removeprefix(_PLAIN)
        quality = paired_bootstrap(ndcg[_OURS], ndcg[peer])
        figures |= _ratio(one.seconds, found[_OURS].seconds, f"speedup{suffix}")
        figures[f"speedup_cpu{suffix}"] = sum(one.cpu) / sum(found[_OURS].cpu)
        figures |= {
            f"quality_diff{suffix}": quality.difference,
            f"quality_diff{suffix}_ci_low": quality.low,
            f"quality_diff{suffix}_ci_high": quality.high,
        }
    columns = ("trainer", "texts_per_second", "texts_per_cpu_second", "ndcg10", "steps", "texts_per_step")
    show_table("training: all weights, same data, batches and steps", columns, [[r[c] for c in columns] for r in table])
    show_table("figures", ("figure", "value"), [(name, f"{value:.2f}") for name, value in figures.items()])
    return figures, table


def _ratio(slow: Sequence[float], fast: Sequence[float], name: str) -> dict[str, float]:
    """Return how many times as long the slow one takes, with a 95% bootstrap interval over pairs of turns."""
    times = np.array([slow, fast])
    drawn = np.random.default_rng(0).integers(times.shape[1], size=(_SAMPLES, times.shape[1]))
    # (2, samples)
    sums = times[:, drawn].sum(axis=2)
    low, high = np.quantile(sums[0] / sums[1], [0.025, 0.975])
    return {name: float(times[0].sum() / times[1].sum()), f"{name}_ci_low": float(low), f"{name}_ci_high": float(high)}


if __name__ == "__main__":
    sys.exit(main())
