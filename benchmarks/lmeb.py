"""MTEB's memory benchmark LMEB (arXiv 2603.12572) for any encoder, and this project's scorer checked against MTEB's.

    python benchmarks/lmeb.py --encoder stock --encoder DIR             LoCoMo, REALTALK and LongMemEval from the hub
    python benchmarks/lmeb.py --tasks all                               every task of LMEB
    python benchmarks/lmeb.py --data locomo10.json                      no hub: our scorer and MTEB's on this file

With ``--data`` the questions of a file in LoCoMo's format are scored twice, by `hins_memory.evaluation` and by the code
of MTEB's LoCoMo task; the largest difference of nDCG@10 in any category has to be below 0.1 points. ``--quick`` does
the same on two conversations, of that file or of the packaged sample.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from hins_memory.encoders.encoder import Encoder
from hins_memory.errors import ConfigError, HinsError
from hins_memory.evaluation import EvalSet, evaluate_encoder
from parts.common.command import base_parser, exit_status
from parts.common.results import write_result
from parts.common.screen import show_table, stage
from parts.datasets.locomo import eval_set, load_locomo, sample_sets
from parts.evaluation.mteb_tasks import DEFAULT_TASKS, lmeb_tasks, run_task, task_scores

_TOLERANCE = 0.1
_METRIC = "ndcg_at_10"


def _parser() -> argparse.ArgumentParser:
    parser = base_parser("MTEB's memory benchmark LMEB, and this project's scorer checked against MTEB's.")
    parser.add_argument(
        "--encoder", action="append", metavar="DIR_OR_NAME", help="an encoder (default stock); may be repeated"
    )
    parser.add_argument(
        "--tasks", nargs="+", default=list(DEFAULT_TASKS), metavar="NAME", help="LMEB's tasks, or all of them: all"
    )
    parser.add_argument("--data", type=Path, metavar="FILE", help="check the scorer on this file in LoCoMo's format")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit status."""
    arguments = _parser().parse_args(argv)
    return exit_status(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> None:
    encoders = [Encoder.load(name) for name in arguments.encoder or ["stock"]]
    settings = {name: value for name, value in vars(arguments).items() if name != "json"}
    settings["encoders"] = [encoder.version for encoder in encoders]
    if arguments.data is not None or arguments.quick:
        figures, rows = _check(_sets(arguments), encoders[0])
        write_result(arguments.json, figures, rows, settings)
        if figures["largest_difference"] >= _TOLERANCE:
            raise HinsError(
                f"The two scorers differ by {figures['largest_difference']:.3f} points.",
                "That is a defect: report it with this file.",
            )
        return
    figures, rows = _tasks(arguments.tasks, encoders)
    write_result(arguments.json, figures, rows, settings)


def _sets(arguments: argparse.Namespace) -> list[EvalSet]:
    if arguments.data is None:
        sets = sample_sets()
    else:
        sets = [found for one in load_locomo(arguments.data) if (found := eval_set(one, "turns")).queries]
    return sets[:2] if arguments.quick else sets


def _check(sets: Sequence[EvalSet], encoder: Encoder) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Score sets by both scorers, in percent; nothing but the scorer differs."""
    stage(f"{len(sets)} conversations, {sum(len(one.queries) for one in sets)} questions, {encoder.version}")
    ours = evaluate_encoder(encoder, sets).by_group()
    theirs = task_scores(sets, encoder)
    rows: list[dict[str, Any]] = []
    for group, scores in ours.items():
        pair = 100 * scores["ndcg@10"], 100 * theirs[group][_METRIC]
        rows.append({"group": group, "ours": pair[0], "mteb": pair[1], "difference": pair[0] - pair[1]})
    show_table(
        f"nDCG@10 of {encoder.version}, our scorer and MTEB's",
        ["category", "ours", "MTEB's", "difference"],
        [[row["group"], f"{row['ours']:.3f}", f"{row['mteb']:.3f}", f"{row['difference']:+.4f}"] for row in rows],
    )
    return {"largest_difference": max(abs(row["difference"]) for row in rows)}, rows


def _tasks(names: Sequence[str], encoders: Sequence[Encoder]) -> tuple[dict[str, float], list[dict[str, Any]]]:
    known = lmeb_tasks()
    wanted = known if list(names) == ["all"] else list(names)
    if unknown := sorted(set(wanted) - set(known)):
        raise ConfigError(f"LMEB has no task {', '.join(unknown)}.", f"It has {', '.join(known)}.")
    if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
        stage("HF_HUB_OFFLINE is set: only tasks that are in the hub's cache can be run")
    rows: list[dict[str, Any]] = []
    unreachable: list[ConfigError] = []
    for task in wanted:
        for encoder in encoders:
            stage(f"{task}: {encoder.version}")
            try:
                found = run_task(task, encoder)
            except ConfigError as error:
                stage(str(error))
                unreachable.append(error)
                break
            rows += [
                {"task": task, "subset": subset, "encoder": encoder.version, "ndcg10": 100 * scores[_METRIC]}
                for subset, scores in found.items()
            ]
    if not rows:
        raise unreachable[0]
    figures = {}
    for encoder in encoders:
        for task in wanted:
            scores = [row["ndcg10"] for row in rows if (row["task"], row["encoder"]) == (task, encoder.version)]
            if scores:
                figures[f"{task}:{encoder.version}"] = fmean(scores)
    show_table(
        "LMEB, nDCG@10",
        ["task", "subset", "encoder", "nDCG@10"],
        [[row["task"], row["subset"], row["encoder"], row["ndcg10"]] for row in rows],
    )
    return figures, rows


if __name__ == "__main__":
    sys.exit(main())
