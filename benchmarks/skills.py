"""Memory skills: how well encoders rank memories for questions of one kind each (docs/reference/skills.md).

    python benchmarks/skills.py --encoders stock,starter,bm25
    python benchmarks/skills.py --encoders stock,starter,DIR --half judge --json RESULT.json

A row a skill: nDCG@10 and recall@10 in percent, and what each encoder gains over the first one, with 95% intervals
(paired bootstrap over questions). The last row is the mean over all questions. ``--half choose`` (the default) is for
choosing; ``--half judge`` is for reporting, and nothing is to be chosen by it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np

from hins_memory.encoders.encoder import Encoder
from hins_memory.errors import ConfigError
from hins_memory.evaluation import (
    EvalSet,
    RankingScores,
    evaluate_encoder,
    paired_bootstrap,
    score_rankings,
    skill_sets,
)
from hins_memory.evaluation.skills import Half
from parts.agents.alone import BM25, bm25_version, rank_bm25
from parts.common.command import base_parser, exit_status
from parts.common.results import write_result
from parts.common.screen import show_table, stage

_ALL = "all"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit status."""
    parser = base_parser("Encoders on the packaged memory skills, a row a skill.")
    parser.add_argument(
        "--encoders",
        default="stock,starter,bm25",
        metavar="NAME,...",
        help="stock, starter, folders, names of the hub, bm25; gains are over the first",
    )
    parser.add_argument("--half", choices=get_args(Half), default="choose", help="default choose")
    parser.add_argument("--skills", metavar="NAME,...", help="only these")
    arguments = parser.parse_args(argv)
    return exit_status(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> None:
    encoders = [name.strip() for name in arguments.encoders.split(",")]
    labels = [Path(name).name for name in encoders]
    if len(set(labels)) < len(labels) or "" in labels:
        raise ConfigError("--encoders names an encoder twice, or none.", "Give each a name of its own.")
    names = arguments.skills.split(",") if arguments.skills else None
    sets = skill_sets(arguments.half, names, people=1 if arguments.quick else None)
    scores: dict[str, RankingScores] = {}
    versions: dict[str, str] = {}
    for label, name in zip(labels, encoders, strict=True):
        stage(f"{label}: {sum(len(one.queries) for one in sets)} questions of {len(sets)} people")
        scores[label], versions[label] = _score(name, sets)
    rows = _rows(scores, arguments.seed)
    _show(rows, labels)
    figures = {f"{row['skill']}_{row['encoder']}_{name}": row[name] for row in rows for name in ("ndcg10", "recall10")}
    settings = {name: value for name, value in vars(arguments).items() if name != "json"}
    # The names of folders alone: where they lay says something of the machine.
    named = {label: Path(version).name for label, version in versions.items()}
    settings |= {"encoders": ",".join(labels), "encoder_versions": named}
    write_result(arguments.json, figures, rows, settings)


def _score(name: str, sets: Sequence[EvalSet]) -> tuple[RankingScores, str]:
    """Return the scores of an encoder, or of BM25, and its version."""
    if name == BM25:
        version = bm25_version()
        rankings = [
            ranking for one in sets for ranking in rank_bm25(one.documents, [query.text for query in one.queries])
        ]
        return score_rankings(sets, rankings, ks=(10,)), version
    encoder = Encoder.load(name)
    return evaluate_encoder(encoder, sets, ks=(10,)), encoder.version


def _rows(scores: dict[str, RankingScores], seed: int) -> list[dict[str, Any]]:
    """Return the rows of every skill and encoder; figures in percent, gains over the first encoder."""
    first = next(iter(scores.values()))
    groups = np.array(first.groups)
    rows = []
    for skill in (*sorted(set(first.groups)), _ALL):
        chosen = np.ones(len(groups), dtype=bool) if skill == _ALL else groups == skill
        for label, one in scores.items():
            values = one.ndcg[10][chosen]
            row: dict[str, Any] = {"skill": skill, "encoder": label, "questions": int(chosen.sum())}
            row |= {"ndcg10": 100 * float(values.mean()), "recall10": 100 * float(one.recall[10][chosen].mean())}
            if one is not first:
                gain = paired_bootstrap(values, first.ndcg[10][chosen], seed=seed)
                row |= {"gain": 100 * gain.difference, "gain_low": 100 * gain.low, "gain_high": 100 * gain.high}
            rows.append({key: round(value, 2) if isinstance(value, float) else value for key, value in row.items()})
    return rows


def _show(rows: Sequence[dict[str, Any]], labels: Sequence[str]) -> None:
    of = {(row["skill"], row["encoder"]): row for row in rows}
    table = []
    for skill in dict.fromkeys(row["skill"] for row in rows):
        cells: list[Any] = [skill, of[skill, labels[0]]["questions"]]
        for label in labels:
            row = of[skill, label]
            cells.append(f"{row['ndcg10']:.1f} / {row['recall10']:.1f}")
            if label != labels[0]:
                cells.append(f"{row['gain']:+.1f} ({row['gain_low']:.1f} to {row['gain_high']:.1f})")
        table.append(cells)
    columns = ["skill", "questions", labels[0]]
    for label in labels[1:]:
        columns += [label, "gain"]
    show_table("nDCG@10 / recall@10 in percent", columns, table)


if __name__ == "__main__":
    sys.exit(main())
