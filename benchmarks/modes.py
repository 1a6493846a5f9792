"""Which mode of training? query, lora and full side by side on LoCoMo's deployment folds: what each gains and costs.

    python benchmarks/modes.py --data locomo10.json --work DIR --memories turns facts --labels --json result.json
    python benchmarks/modes.py --data locomo10.json --work DIR --modes lora lora:learning_rate=8e-4,epochs=4

Conversations are played through a real Mem0 with an encoder (``--base``); for each fold it is trained on the traffic of
the other conversations and scored on its held-out ones (encoder alone). With ``--labels`` the same again from the
dataset's evidence labels instead of the outcomes of searches. Every training's result is kept in ``--work``, so that
an interrupted run continues where it was.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

os.environ.setdefault("MEM0_TELEMETRY", "False")

from hins_memory.encoders.cached import CACHE_TEXTS
from hins_memory.encoders.encoder import Encoder
from hins_memory.errors import ConfigError
from hins_memory.evaluation import cutoff_shares, paired_bootstrap
from hins_memory.evaluation.gate import MIN_CUTOFF_SHARE
from parts.common.command import base_parser, exit_status
from parts.common.files import resolve_data
from parts.common.results import write_result
from parts.common.screen import show_table, stage
from parts.datasets.locomo import ANSWERABLE, LOCOMO, Conversation, documents, load_locomo
from parts.locomo.deployment import split_folds
from parts.training.modes import CUTOFFS, Cell, K, Source, Variant, code_digest, play, run_cell, untrained_cell

if TYPE_CHECKING:
    import argparse

    from numpy.typing import NDArray

    from hins_memory.evaluation import BootstrapResult
    from parts.datasets.locomo import Memories

_QUICK_QUESTIONS = 100
_COLUMNS = {
    "variant": "mode",
    "gain": "gain",
    "gain_low": "low",
    "worst_fold": "worst fold",
    "adversarial": "cat. 5",
    "train_seconds": "train s",
    "delta_mib": "delta MiB",
    "swap_written": "re-embedded",
    "swap_seconds": "swap s",
    "general_loss": "general loss",
    "kept": "kept",
    "labels_gain": "from labels",
    "labels_ahead": "labels ahead",
}

Results = list[list[dict[str, Any]]]  # seed -> fold -> result


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit status."""
    parser = base_parser(str(__doc__).splitlines()[0])
    parser.add_argument("--data", type=Path, metavar="FILE", help="locomo10.json or a file of its format")
    parser.add_argument("--work", type=Path, metavar="DIR", required=True, help="keeps traffic and results; resumes")
    parser.add_argument("--memories", nargs="+", choices=["turns", "facts"], default=["turns"], help="what is stored")
    parser.add_argument(
        "--base", choices=["stock", "starter"], default="stock", help="the encoder that serves at first, and is trained"
    )
    parser.add_argument(
        "--modes",
        nargs="+",
        default=["query", "lora", "full"],
        metavar="MODE[:NAME=VALUE,...]",
        help="ways to train, with settings that differ from the defaults (default: query lora full)",
    )
    parser.add_argument("--folds", type=int, default=5, help="folds by conversation (default 5)")
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds, from --seed on (default 3)")
    parser.add_argument("--labels", action="store_true", help="train from the evidence labels as well, to compare")
    parser.add_argument("--no-swap", action="store_true", help="do not measure what a swap costs")
    arguments = parser.parse_args(argv)
    return exit_status(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> None:
    # Mem0 writes to its own folder on import; a benchmark leaves no trace in the user's.
    os.environ.setdefault("MEM0_DIR", str(arguments.work / "mem0"))
    if arguments.seeds < 1:
        raise ConfigError(f"{arguments.seeds} seeds.", "Use at least 1.")
    variants = [Variant.parse(text) for text in dict.fromkeys(arguments.modes)]
    data = load_locomo(resolve_data(arguments.data, LOCOMO))
    if arguments.quick:
        data = [replace(one, questions=one.questions[:_QUICK_QUESTIONS]) for one in data[:2]]
        arguments.folds, arguments.seeds = 2, 1
    figures: dict[str, float] = {}
    rows: list[dict[str, Any]] = []
    for memories in dict.fromkeys(arguments.memories):
        found = _table(data, memories, variants, arguments)
        rows += found
        for row in found:
            name = f"{memories}_{row['variant']}_"
            figures |= {name + key: row[key] for key in row if isinstance(row[key], float)}
        show_table(
            f"{memories}: nDCG@{K} points over {arguments.base} ({found[0]['before']:.1f}), categories 1-4, held out",
            list(_COLUMNS.values()),
            [[row.get(name) for name in _COLUMNS] for row in found],
        )
    settings = {name: value for name, value in vars(arguments).items() if name not in ("json", "work")}
    write_result(arguments.json, figures, rows, settings)


def _table(
    data: Sequence[Conversation], memories: Memories, variants: Sequence[Variant], arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    """Return a row for each variant."""
    base = Encoder.load(arguments.base)
    # Room for everything that was played and for the public texts, because every fold mines most of it again.
    texts = sum(len(documents(one, memories)) + 4 * len(one.questions) for one in data)
    base = Encoder(base.model, base.version, cache_size=max(CACHE_TEXTS, 4 * texts))
    folds = split_folds(data, arguments.folds, arguments.seed)
    traffic = play(data, memories, arguments.base, arguments.work)
    sources: list[Source] = ["outcomes", "labels"] if arguments.labels else ["outcomes"]
    results: dict[tuple[str, Source], Results] = {}
    # Modes vary fastest, so that an interrupted run has something of every one.
    for number in range(arguments.seeds):
        for fold in folds:
            for source in sources:
                for variant in variants:
                    measured = number == 0 and fold is folds[0] and source == "outcomes" and not arguments.no_swap
                    cell = Cell(
                        traffic, fold, source, variant, arguments.seed + number, quick=arguments.quick, swap=measured
                    )
                    runs = results.setdefault((variant.name, source), [])
                    if len(runs) == number:
                        runs.append([])
                    runs[number].append(run_cell(cell, base, arguments.work))
    before = [untrained_cell(memories, fold, base, arguments.quick) for fold in folds]
    stock = before
    if arguments.base != "stock":
        plain = Encoder.load()
        stock = [untrained_cell(memories, fold, plain, arguments.quick) for fold in folds]
    codes = {one["code"] for runs in results.values() for seed in runs for one in seed}
    if codes != {code_digest()}:
        stage("some results are of other code than today's: remove the work folder to measure them again")
    return [
        _row(
            memories, variant, (before, stock), results[variant.name, "outcomes"], results.get((variant.name, "labels"))
        )
        | {"code": sorted(codes)}
        for variant in variants
    ]


class _Questions:
    """Scores of all held-out questions, in the order of the folds: means over seeds, in points."""

    def __init__(self, runs: Results) -> None:
        first = [(fold["groups"], fold["sets"]) for fold in runs[0]]
        self.groups = np.concatenate([np.asarray(groups) for groups, _ in first])
        self.folds = np.concatenate([np.full(len(groups), place) for place, (groups, _) in enumerate(first)])
        # (seeds, questions)
        self.seeds = 100 * np.array([np.concatenate([fold["ndcg"] for fold in run]) for run in runs])
        self.mean: NDArray[np.float64] = self.seeds.mean(axis=0)
        self.answerable = np.isin(self.groups, ANSWERABLE)


def _row(
    memories: Memories,
    variant: Variant,
    untrained: tuple[list[dict[str, Any]], list[dict[str, Any]]],
    runs: Results,
    labels: Results | None,
) -> dict[str, Any]:
    """Return a variant's figures; `untrained` are the folds' results under the base, and under the stock encoder."""
    before, stock, after = _Questions([untrained[0]]), _Questions([untrained[1]]), _Questions(runs)
    rows = after.answerable
    gain = paired_bootstrap(after.mean[rows], before.mean[rows])
    by_fold = [
        after.mean[rows & (after.folds == n)].mean() - before.mean[rows & (before.folds == n)].mean()
        for n in np.unique(after.folds[rows])
    ]
    cells = [cell for run in runs for cell in run]
    general = untrained[0][0]["general"]
    swap: dict[str, float] = next((cell["swap"] for cell in cells if "swap" in cell), {})
    row: dict[str, Any] = {
        "memories": memories,
        "variant": variant.name,
        "questions": int(rows.sum()),
        "stock": float(stock.mean[rows].mean()),
        "before": float(before.mean[rows].mean()),
        "trained": float(after.mean[rows].mean()),
        **_interval("gain", gain),
        **_interval("gain_over_stock", paired_bootstrap(after.mean[rows], stock.mean[rows])),
        "seeds": [float(seed[rows].mean() - before.mean[rows].mean()) for seed in after.seeds],
        "worst_fold": float(min(by_fold)),
        "adversarial": _mean_of(after, "5") - _mean_of(before, "5"),
        "examples": float(np.mean([cell["examples"] for cell in cells])),
        "mine_seconds": float(np.mean([cell["mine_seconds"] for cell in cells])),
        "train_seconds": float(np.mean([cell["train_seconds"] for cell in cells])),
        "train_seconds_max": float(max(cell["train_seconds"] for cell in cells)),
        "folder_mib": max(cell["folder_bytes"] for cell in cells) / 2**20,
        "delta_mib": max(cell["delta_bytes"] for cell in cells) / 2**20,
        "general_before": 100 * general,
        "general_loss": 100 * (general - float(np.mean([cell["general"] for cell in cells]))),
        "kept": float(np.mean([cell["kept"] for cell in cells])),
        "kept_least": float(min(cell["kept"] for cell in cells)),
        "general_loss_max": 100 * (general - min(cell["general"] for cell in cells)),
        **{f"swap_{name}": float(value) for name, value in swap.items()},
        **_cutoffs(untrained[0], cells),
        "shift_max_fold": largest_shift(untrained[0], runs),
    }
    if labels is not None:
        best = _Questions(labels)
        row["labels_gain"] = float(best.mean[rows].mean() - before.mean[rows].mean())
        row |= _interval("labels_ahead", paired_bootstrap(best.mean[rows], after.mean[rows]))
    return row


def _interval(name: str, result: BootstrapResult) -> dict[str, float]:
    return {name: result.difference, f"{name}_low": result.low, f"{name}_high": result.high}


def _mean_of(questions: _Questions, group: str) -> float:
    rows = questions.groups == group
    return float(questions.mean[rows].mean()) if rows.any() else 0.0


def largest_shift(untrained: Sequence[dict[str, Any]], runs: Results) -> float:
    """Return by how much a share of results over a cut-off changes in the fold and training where it changes most.

    Args:
        untrained: the folds' results under the base.
        runs: the trained results, by seed and fold.
    """
    return max(
        _cutoffs([before], [after])["shift_max"] for run in runs for before, after in zip(untrained, run, strict=True)
    )


def _cutoffs(untrained: Sequence[dict[str, Any]], cells: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return the share of results over each cut-off before and after, and the largest change as the gate counts it."""
    old, new = (
        cutoff_shares(np.concatenate([np.concatenate([row for row in one["top_scores"]]) for one in part]), CUTOFFS)
        for part in (untrained, cells)
    )
    floor = MIN_CUTOFF_SHARE
    found: dict[str, float] = {}
    for cutoff in CUTOFFS:
        found |= {f"share_{cutoff:g}_before": old[cutoff], f"share_{cutoff:g}_after": new[cutoff]}
        found[f"shift_{cutoff:g}"] = abs(new[cutoff] - old[cutoff]) / max(old[cutoff], floor)
    return found | {"shift_max": max(found[f"shift_{cutoff:g}"] for cutoff in CUTOFFS)}


if __name__ == "__main__":
    sys.exit(main())
