"""How fast the miner is and how much memory it takes, beside sentence-transformers' mine_hard_negatives.

    python benchmarks/mining.py --data synthetic_persona_chat_valid.csv --json result.json
    python benchmarks/mining.py --data synthetic_persona_chat_valid.csv --events 1000000
    python benchmarks/mining.py --ray 2 --sizes 1000000

With ``--events`` that number of events of the same conversations are written to a log on disk first, and only our
miner reads them from there; its seconds then include the reading. With ``--ray 2`` a log on disk, 100 memories a user,
is mined by one ``hins mine``, by two with half of the users each, and by ``hins mine --ray`` on two workers, with an
encoder that adds up a vector for each token; the seconds are those of the whole commands.

Synthetic logs of many users, each with four conversations of two speakers; every fact about a speaker is a query. Both
miners get the same (query, positive) pairs, the same memories and the same vectors (random projections of words, whose
cost is taken off both, as is that of imports), choose three negatives with a margin of 5% to the positive, and run in a
process of their own.
They do not do the same: mine_hard_negatives searches all users' memories and gives the nearest; ours looks only into
the user's own, finds the pairs in what was recorded, which the other gets ready made, tells topics and tiers, measures
the ratio, and writes a Parquet file. Peak memory is the process's whole, libraries included.
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

from hins_memory.database.engine import open_database
from hins_memory.encoders.encoder import Encoder
from hins_memory.errors import HinsError
from hins_memory.log.reader import LogReader
from hins_memory.log.writer import LogWriter
from hins_memory.mining import MineSettings, mine_to_parquet
from hins_memory.types import Event, ScopeLog
from parts.common.command import base_parser, exit_status
from parts.common.results import write_result
from parts.common.screen import show_table, stage
from parts.mining.spread import figures_of, spread_rows
from parts.mining.synthetic import Measured, Plan, WordVectors, chats, measured, synthetic_logs

_SIZES = (10_000, 100_000, 1_000_000)
_QUICK_SIZES = (2_000,)
_SPREAD_SIZES = (100_000,)
# Of a user, where the log is mined by several.
_OF_A_USER = 100
# Memories of the log that is mined before the clock starts.
_FIRST = 200
# The peer compares every query with every memory: at a million that takes hours.
_PEER_MOST = 100_000
_NEGATIVES = 3
_OURS, _PEER = "hins", "mine_hard_negatives"
_WRITE, _LOG = "write", "hins, from the log"
# Written to the log at a time.
_BATCH = 5_000


class _Timed:
    """Iterates over logs and counts the processor seconds that making them takes, which are not mining."""

    def __init__(self, logs: Iterator[ScopeLog], model: WordVectors) -> None:
        self._logs = logs
        self._model = model
        self.seconds = 0.0
        self.queries = 0

    def __iter__(self) -> Iterator[ScopeLog]:
        while True:
            started, encoding = time.process_time(), self._model.seconds
            log = next(self._logs, None)
            # The vectors' own seconds are counted by the model.
            self.seconds += time.process_time() - started - (self._model.seconds - encoding)
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
        # What a first call imports is not counted, as it is not of the peer.
        few = synthetic_logs(chats(None), Plan(_FIRST, users=1), model)
        mine_to_parquet(few, cast(Encoder, model), Path(folder) / "first.parquet", settings)
        model.seconds = 0.0

        def work() -> None:
            target = Path(folder) / "examples.parquet"
            reports.append(mine_to_parquet(logs, cast(Encoder, model), target, settings))

        found = measured(work)
    report = reports[0]
    counts = {"queries": logs.queries, "examples": report.examples, "users": report.owners}
    return counts | _row(found, logs.seconds + model.seconds)


def _write_log(events: int, seed: int, data: Path | None, folder: Path) -> dict[str, Any]:
    """Write a log of that many events, users whole, so that the last one may go over it."""
    writer = LogWriter(open_database(f"sqlite:///{folder / 'log.db'}"))
    model = WordVectors()
    waiting: list[Event] = []
    written = 0
    for log in synthetic_logs(chats(data), Plan(events, seed=seed), model):
        waiting += [*log.memories, *log.retrievals, *log.answers, *log.feedback]
        if len(waiting) >= _BATCH or written + len(waiting) >= events:
            writer.write(waiting)
            written += len(waiting)
            waiting.clear()
        if written >= events:
            break
    return {"events": written}


def _from_log(seed: int, folder: Path, budget: int) -> dict[str, Any]:
    model = WordVectors()
    settings = MineSettings(negatives=_NEGATIVES, guard=0.95, seed=seed, memory_budget=budget)
    reports = []

    def work() -> None:
        logs = LogReader(open_database(f"sqlite:///{folder / 'log.db'}")).scope_logs()
        reports.append(mine_to_parquet(logs, cast(Encoder, model), folder / "examples.parquet", settings))

    found = measured(work)
    report = reports[0]
    counts = {"queries": report.queries, "examples": report.examples, "users": report.owners}
    return counts | {"mined_memories": report.memories} | _row(found, model.seconds)


def _peer(plan: Plan, data: Path | None) -> dict[str, Any]:
    import faiss  # noqa: F401 - so that its import is not counted
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


def _child(arguments: argparse.Namespace, miner: str, plan: Plan, folder: str = "") -> dict[str, Any]:
    """Measure one miner in a process of its own."""
    who = "one user" if plan.users == 1 else "many users"
    outcome = "answers" if plan.answers else "feedback"
    stage(f"{miner}: {plan.memories} memories, {who}, {outcome}")
    command = [
        sys.executable,
        __file__,
        "--child",
        json.dumps({"miner": miner, "plan": asdict(plan), "folder": folder}),
    ]
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


def _spread(arguments: argparse.Namespace) -> None:
    size = (arguments.sizes or (_QUICK_SIZES if arguments.quick else _SPREAD_SIZES))[0]
    plan = Plan(size, users=max(1, size // _OF_A_USER), seed=arguments.seed)
    rows = spread_rows(plan, arguments.ray, arguments.data)
    figures = figures_of(rows)
    names = ("miner", "memories", "users", "examples", "seconds", "processor_seconds", "peak_mib")
    show_table("mining", names, [[row[name] for name in names] for row in rows])
    show_table("figures", ("figure", "value"), [(name, f"{value:.2f}") for name, value in figures.items()])
    settings = {name: getattr(arguments, name) for name in ("data", "ray", "seed", "quick")}
    write_result(arguments.json, figures, rows, settings)


def _run(arguments: argparse.Namespace) -> None:
    if arguments.child:
        job = json.loads(arguments.child)
        plan = Plan(**job["plan"])
        print(json.dumps(_measure(job["miner"], plan, Path(job["folder"]), arguments)))
        return
    if arguments.ray:
        _spread(arguments)
        return
    rows = []
    if arguments.events:
        plan = Plan(arguments.events, seed=arguments.seed)
        with tempfile.TemporaryDirectory() as folder:
            written = _child(arguments, _WRITE, plan, folder)
            row = _child(arguments, _LOG, plan, folder)
            rows.append(row | {"events": written["events"], "memories": row["mined_memories"]})
    for size in () if arguments.events else arguments.sizes or (_QUICK_SIZES if arguments.quick else _SIZES):
        plan = Plan(size, seed=arguments.seed)
        rows.append(_child(arguments, _OURS, plan))
        if size <= _PEER_MOST:
            rows.append(_child(arguments, _PEER, plan))
            rows.append(_child(arguments, _OURS, Plan(size, answers=True, seed=arguments.seed)))
            rows.append(_child(arguments, _OURS, Plan(size, users=1, seed=arguments.seed)))
    names = ("miner", "memories", "scopes", "outcomes", "queries", "examples", "seconds", "peak_mib", "grown_mib")
    show_table("mining", names, [[row[name] for name in names] for row in rows])
    figures = {} if arguments.events else _figures(rows)
    show_table("figures", ("figure", "value"), [(name, f"{value:.2f}") for name, value in figures.items()])
    settings = {name: getattr(arguments, name) for name in ("data", "events", "seed", "quick", "memory_budget")}
    write_result(arguments.json, figures, rows, settings)


def _measure(miner: str, plan: Plan, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    if miner == _WRITE:
        return _write_log(plan.memories, plan.seed, arguments.data, folder)
    if miner == _LOG:
        return _from_log(plan.seed, folder, arguments.memory_budget)
    return _ours(plan, arguments.data, arguments.memory_budget) if miner == _OURS else _peer(plan, arguments.data)


def main() -> None:
    """Parse the arguments and run."""
    parser = base_parser(str(__doc__).splitlines()[0])
    parser.add_argument("--data", type=Path, metavar="FILE", help="Synthetic-Persona-Chat CSV (default: made-up text)")
    parser.add_argument("--sizes", type=int, nargs="+", metavar="N", help="how many memories (default 10k, 100k, 1M)")
    parser.add_argument("--events", type=int, metavar="N", help="mine a log of N events on disk, and nothing else")
    parser.add_argument(
        "--ray", type=int, metavar="N", help="mine a log on disk by 1 process, by N, and by N workers of a Ray cluster"
    )
    parser.add_argument(
        "--memory-budget", type=int, default=MineSettings().memory_budget, metavar="BYTES", help="of our miner"
    )
    parser.add_argument("--child", help=argparse.SUPPRESS)
    _run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(exit_status(main))
