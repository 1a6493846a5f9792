"""How fast the miner is and how much memory it takes, beside sentence-transformers' mine_hard_negatives.

    python benchmarks/mining.py --data synthetic_persona_chat_valid.csv --json result.json

Synthetic logs of many users, each with four conversations of two speakers; every fact about a speaker is a query. Both
miners get the same (query, positive) pairs, the same memories and the same vectors (random projections of words, whose
cost is taken off both), choose three negatives with a margin of 5% to the positive, and run in a process of their own.
They do not do the same: mine_hard_negatives searches all users' memories and gives the nearest; ours looks only into
the user's own, tells topics and tiers, measures the ratio, and writes a Parquet file. Peak memory is the process's
whole, libraries included.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from hins_memory.encoders.encoder import Encoder
from hins_memory.errors import HinsError
from hins_memory.mining import MineSettings, mine_to_parquet
from hins_memory.types import ScopeLog
from parts.common.command import base_parser, exit_status
from parts.common.results import write_result
from parts.common.screen import show_table, stage
from parts.mining.synthetic import Measured, Plan, WordVectors, chats, measured, synthetic_logs

_SIZES = (10_000, 100_000, 1_000_000)
_QUICK_SIZES = (2_000,)
# The peer compares every query with every memory: at a million that takes hours.
_PEER_MOST = 100_000
_NEGATIVES = 3
_OURS, _PEER = "hins", "mine_hard_negatives"


class _Timed:
    """Iterates over logs and counts the seconds that making them takes, which are not mining."""

    def __init__(self, logs: Iterator[ScopeLog], model: WordVectors) -> None:
        self._logs = logs
        self._model = model
        self.seconds = 0.0
        self.queries = 0

    def __iter__(self) -> Iterator[ScopeLog]:
        while True:
            started, encoding = time.perf_counter(), self._model.seconds
            log = next(self._logs, None)
            # The vectors' own seconds are counted by the model.
            self.seconds += time.perf_counter() - started - (self._model.seconds - encoding)
            if log is None:
                return
            self.queries += len(log.retrievals)
            yield log


def _ours(plan: Plan, data: Path | None, budget: int) -> dict[str, Any]:
    model = WordVectors()
    logs = _Timed(synthetic_logs(chats(data), plan, model), model)
    settings = MineSettings(negatives=_NEGATIVES, guard=0.95, seed=plan.seed, memory_budget=budget)
    reports = []
    with tempfile.TemporaryDirectory() as folder:

        def work() -> None:
            target = Path(folder) / "examples.parquet"
            reports.append(mine_to_parquet(logs, cast(Encoder, model), target, settings))

        found = measured(work)
    report = reports[0]
    counts = {"queries": logs.queries, "examples": report.examples, "users": report.owners}
    return counts | _row(found, logs.seconds + model.seconds)


def _peer(plan: Plan, data: Path | None) -> dict[str, Any]:
    from datasets import Dataset
    from sentence_transformers.util import mine_hard_negatives

    model = WordVectors()
    queries: list[str] = []
    positives: list[str] = []
    corpus: list[str] = []
    users = 0
    for log in synthetic_logs(chats(data), plan, model):
        texts = {memory.id: memory.text for memory in log.memories}
        corpus += texts.values()
        queries += [one.query for one in log.retrievals]
        positives += [texts[one.memory_id] for one in log.feedback]
        users += 1
    pairs = Dataset.from_dict({"query": queries, "positive": positives})
    model.seconds = 0.0
    mined = []

    def work() -> None:
        with contextlib.redirect_stdout(sys.stderr):
            mined.append(
                mine_hard_negatives(
                    pairs,
                    cast(Any, model),
                    corpus=corpus,
                    relative_margin=0.05,
                    num_negatives=_NEGATIVES,
                    output_format="n-tuple",
                    use_faiss=True,
                    verbose=False,
                )
            )

    found = measured(work)
    return {"queries": len(queries), "examples": len(mined[0]), "users": users} | _row(found, model.seconds)


def _row(found: Measured, encoding: float) -> dict[str, Any]:
    return {
        "seconds": found.seconds - encoding,
        "total_seconds": found.seconds,
        "peak_mib": found.peak,
        "grown_mib": found.peak - found.before,
    }


def _child(arguments: argparse.Namespace, miner: str, plan: Plan) -> dict[str, Any]:
    """Measure one miner in a process of its own."""
    who = "one user" if plan.users == 1 else "many users"
    outcome = "answers" if plan.answers else "feedback"
    stage(f"{miner}: {plan.memories} memories, {who}, {outcome}")
    command = [sys.executable, __file__, "--child", json.dumps({"miner": miner, "plan": asdict(plan)})]
    command += ["--data", str(arguments.data)] if arguments.data else []
    command += ["--memory-budget", str(arguments.memory_budget)]
    environment = os.environ | {"TQDM_DISABLE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise HinsError(f"{miner} failed at {plan.memories} memories: {done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {"miner": miner, "memories": plan.memories, "scopes": who, "outcomes": outcome, **result}


def _figures(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    figures: dict[str, float] = {}
    main = [row for row in rows if row["outcomes"] == "feedback" and row["scopes"] == "many users"]
    for size in dict.fromkeys(row["memories"] for row in main):
        here = {row["miner"]: row for row in main if row["memories"] == size}
        name = f"{size // 1_000_000}m" if size >= 1_000_000 else f"{size // 1_000}k"
        figures[f"peak_gib_{name}"] = here[_OURS]["peak_mib"] / 1024
        if _PEER in here:
            figures[f"speedup_{name}"] = here[_PEER]["seconds"] / here[_OURS]["seconds"]
            figures[f"memory_ratio_{name}"] = here[_PEER]["peak_mib"] / here[_OURS]["peak_mib"]
    return figures


def _run(arguments: argparse.Namespace) -> None:
    if arguments.child:
        job = json.loads(arguments.child)
        plan = Plan(**job["plan"])
        ours = job["miner"] == _OURS
        result = _ours(plan, arguments.data, arguments.memory_budget) if ours else _peer(plan, arguments.data)
        print(json.dumps(result))
        return
    rows = []
    for size in arguments.sizes or (_QUICK_SIZES if arguments.quick else _SIZES):
        plan = Plan(size, seed=arguments.seed)
        rows.append(_child(arguments, _OURS, plan))
        if size <= _PEER_MOST:
            rows.append(_child(arguments, _PEER, plan))
            rows.append(_child(arguments, _OURS, Plan(size, answers=True, seed=arguments.seed)))
            rows.append(_child(arguments, _OURS, Plan(size, users=1, seed=arguments.seed)))
    names = ("miner", "memories", "scopes", "outcomes", "queries", "examples", "seconds", "peak_mib", "grown_mib")
    show_table("mining", names, [[row[name] for name in names] for row in rows])
    figures = _figures(rows)
    show_table("figures", ("figure", "value"), [(name, f"{value:.2f}") for name, value in figures.items()])
    settings = {name: getattr(arguments, name) for name in ("data", "seed", "quick", "memory_budget")}
    write_result(arguments.json, figures, rows, settings)


def main() -> None:
    """Parse the arguments and run."""
    parser = base_parser(str(__doc__).splitlines()[0])
    parser.add_argument("--data", type=Path, metavar="FILE", help="Synthetic-Persona-Chat CSV (default: made-up text)")
    parser.add_argument("--sizes", type=int, nargs="+", metavar="N", help="how many memories (default 10k, 100k, 1M)")
    parser.add_argument(
        "--memory-budget", type=int, default=MineSettings().memory_budget, metavar="BYTES", help="of our miner"
    )
    parser.add_argument("--child", help=argparse.SUPPRESS)
    _run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(exit_status(main))
