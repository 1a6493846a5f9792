"""Cold start: what an encoder finds that was trained on synthetic data alone, by rules, before any traffic.

From freely licensed persona chats, with every name and wording of the evaluation sets kept out: synthesis, mining and
training once for each seed, each kept under --work and taken up again. Scored with nothing more:

sample       the packaged conversations (turns)
sample_facts the same questions over facts that were extracted from these conversations
preferences  "what would I like?" over third-person memories
general      the packaged general-retrieval set
locomo       LoCoMo's questions of categories 1 to 4 over turns, and over extracted facts
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from hins_memory.encoders.encoder import Encoder
from hins_memory.encoders.starter import starter_packaged
from hins_memory.errors import ConfigError
from hins_memory.evaluation import BootstrapResult, paired_bootstrap
from parts.common.command import base_parser, exit_status
from parts.common.files import resolve_data
from parts.common.results import write_result
from parts.common.screen import show_table, stage
from parts.datasets.locomo import LOCOMO, load_locomo
from parts.training.cold_start import Recipe, evaluation_exclusion, figures, prior_of, scores, train_seed

_SHOWN = ("sample", "sample_facts", "preferences", "general", "locomo_turns", "locomo_facts")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit status."""
    parser = base_parser("Cold start: encoders trained on synthetic data by rules, scored on what they never saw.")
    parser.add_argument("--corpus", type=Path, nargs="+", metavar="FILE.csv", required=True, help="persona chats")
    parser.add_argument("--data", type=Path, metavar="FILE", help="locomo10.json or a file of its format")
    parser.add_argument("--base", default="stock", metavar="NAME|DIR", help="the encoder to train (default stock)")
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds, from --seed on (default 3)")
    parser.add_argument("--work", type=Path, metavar="DIR", default=Path("start-work"), help="keep each seed there")
    for name, value in asdict(Recipe()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value, help=f"default {value}")
    return exit_status(lambda: _run(parser.parse_args(argv)))


def _run(arguments: Any) -> None:
    if arguments.seeds < 1:
        raise ConfigError(f"--seeds is {arguments.seeds}.", "Use at least 1.")
    recipe = Recipe(**{name: getattr(arguments, name) for name in asdict(Recipe())})
    if arguments.quick:
        recipe, arguments.seeds = replace(recipe, conversations=4, questions=48, max_tokens=32), 1
    data = resolve_data(arguments.data, LOCOMO)
    exclusion = evaluation_exclusion(load_locomo(data))
    scored = None if arguments.quick else data
    base = Path(arguments.base).name
    stage(f"scoring {base} as it is")
    values = [scores(Encoder.load(arguments.base), scored)]
    rows: list[dict[str, Any]] = [{"encoder": base, **figures(values[0])}]
    for seed in range(arguments.seed, arguments.seed + arguments.seeds):
        stage(f"seed {seed}: synthesis, mining, training")
        model, taken = train_seed(arguments.corpus, exclusion, recipe, seed, arguments.work, arguments.base)
        values.append(scores(Encoder.load(model), scored))
        row = {"encoder": f"seed {seed}", **figures(values[-1])}
        rows.append(row | {name: taken[name] for name in ("seconds", "cpu_seconds", "examples", "ranked")})
        stage(", ".join(f"{name} {row[name]:.1f}" for name in _SHOWN if name in row))
    if starter_packaged():
        rows.append({"encoder": "starter", **figures(scores(Encoder.starter(), scored))})
    gains = {
        name: paired_bootstrap(np.mean([one[name] for one in values[1:]], axis=0), values[0][name])
        for name in _SHOWN
        if name in values[0]
    }
    _report(rows, gains, arguments)


def _report(rows: list[dict[str, Any]], gains: dict[str, BootstrapResult], arguments: Any) -> None:
    trained = [row for row in rows if row["encoder"].startswith("seed")]
    names = [name for name in _SHOWN if name in trained[0]]
    mean = {name: float(np.mean([row[name] for row in trained])) for name in names}
    prior = prior_of([row["ranked"] for row in trained])
    found = {f"{name}_mean": mean[name] for name in names}
    if len(trained) > 1:
        found |= {f"{name}_std": float(np.std([row[name] for row in trained], ddof=1)) for name in names}
    for name, gain in gains.items():
        found |= {f"{name}_gain": gain.difference, f"{name}_gain_low": gain.low, f"{name}_gain_high": gain.high}
    found |= {f"prior_{tier}": share for tier, share in prior.items()}
    columns = ("encoder", *names, "seconds")
    shown = [*rows, {"encoder": "mean of the seeds", **mean}]
    show_table("nDCG@10 in percent", columns, [[row.get(name) for name in columns] for row in shown])
    intervals = [[name, gain.difference, gain.low, gain.high] for name, gain in gains.items()]
    show_table("Gain over the base, paired bootstrap over questions", ("set", "gain", "low", "high"), intervals)
    show_table("Share of each tier among what ranks high", list(prior), [[100 * share for share in prior.values()]])
    settings = {name: value for name, value in vars(arguments).items() if name not in ("json", "work")}
    named = {"corpus": [one.name for one in arguments.corpus], "base": Path(arguments.base).name}
    write_result(arguments.json, found, rows, settings | named)


if __name__ == "__main__":
    sys.exit(main())
