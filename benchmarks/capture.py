"""What recording costs: Mem0's `add` and `search` with and without capture, paired, and writers that lose nothing.

    python benchmarks/capture.py --json result.json

One plain `mem0.Memory` in embedded Qdrant, embedding with Mem0's own Hugging Face embedder, is attached to record
only. The same object is then used in blocks of calls, recorded and not, in random order: not recorded means that the
object has its own class back, as before `attach`. A block that records also bears its writer thread's work, which is
waited for at its end, outside of the timing. The median overhead is the median over the pairs of blocks of the ratio
of their medians. What is added at p99 is paired within each recorded call, because the tails of separate calls differ
by more than it, whatever they do: the time of the whole call less that of Mem0's own method inside it. The p99 of both
kinds of calls are shown as well. Last, eight processes write to one log at once.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from hins_adapter_mem0.indexes import open_index
from hins_adapter_mem0.stores import GuardedStore

import hins_memory
from hins_memory.config import Settings
from hins_memory.database.engine import open_database
from hins_memory.encoders.encoder import Encoder, resolve_model
from hins_memory.log.capture import Capture, flush_all
from hins_memory.log.reader import LogReader
from hins_memory.types import Memory, RankedMemory, Retrieval, Scope, Turn
from parts.common.command import base_parser, exit_status
from parts.common.results import write_result
from parts.common.screen import show_table, stage
from parts.swapping.load import ASKED_FOR, PER_USER, fill_index, memory_text, user_of

_SIZES, _QUICK_SIZES = (1_000, 100_000), (300,)
# One search of embedded Qdrant takes two thirds of a second at 100k memories; a quarter of the blocks has to do.
_MANY = 10_000
_BLOCKS, _QUICK_BLOCKS = 40, 4
_BLOCK = 20
_WRITERS, _QUICK_WRITERS = 8, 2
_EVENTS, _QUICK_EVENTS = 2_000, 200


def _plain_memory(folder: Path) -> Any:
    import mem0
    from mem0.configs.base import MemoryConfig

    store = {"collection_name": "mem0", "path": str(folder / "qdrant"), "embedding_model_dims": 384, "on_disk": True}
    return mem0.Memory(
        MemoryConfig(
            vector_store={"provider": "qdrant", "config": store},
            embedder={"provider": "huggingface", "config": {"model": resolve_model("stock"), "embedding_dims": 384}},
            llm={"provider": "openai", "config": {"api_key": "unused", "openai_base_url": "http://127.0.0.1:9/v1"}},
            history_db_path=str(folder / "history.db"),
        )
    )


class _Calls:
    """The calls that are measured; no text is embedded twice."""

    def __init__(self, memory: Any, count: int, seed: int) -> None:
        self.memory, self.count = memory, count
        self._draw = random.Random(seed)
        self._number = 10 * count

    def search(self) -> float:
        number = self._draw.randrange(min(self.count, ASKED_FOR))
        self._number += 1
        query = f"{memory_text(number)} Is it {self._number}?"
        started = time.perf_counter()
        found = self.memory.search(query, filters={"user_id": user_of(number)}, top_k=20)
        seconds = time.perf_counter() - started
        assert len(found["results"]) == min(20, PER_USER)
        return seconds

    def add(self) -> float:
        self._number += 1
        text = memory_text(self._number)
        started = time.perf_counter()
        self.memory.add(text, user_id="writer", infer=False)
        return time.perf_counter() - started


@contextmanager
def _timed(kind: type, name: str) -> Iterator[list[float]]:
    """Keep the seconds of each outermost call of a class's method within the block."""
    own, seconds, depth = getattr(kind, name), [], 0

    def method(*arguments: Any, **options: Any) -> Any:
        nonlocal depth
        started, depth = time.perf_counter(), depth + 1
        try:
            return own(*arguments, **options)
        finally:
            depth -= 1
            if not depth:
                seconds.append(time.perf_counter() - started)

    setattr(kind, name, method)
    try:
        yield seconds
    finally:
        setattr(kind, name, own)


def _paired(
    memory: Any, name: str, call: Callable[[], float], blocks: int, seed: int
) -> tuple[list[list[float]], list[list[float]], list[float]]:
    """Return the seconds of the calls that are not recorded and of those that are, by block; and what each adds."""
    recording, plain = type(memory), type(memory).__mro__[1]
    seconds: dict[type, list[list[float]]] = {recording: [], plain: []}
    added: list[float] = []
    draw = random.Random(seed)
    for _ in range(blocks):
        for kind in draw.sample([recording, plain], 2):
            memory.__class__ = kind
            with _timed(plain, name) as inner:
                block = [call() for _ in range(_BLOCK)]
            memory.__class__ = recording
            flush_all(60)
            seconds[kind].append(block)
            if kind is recording:
                added += [whole - own for whole, own in zip(block, inner, strict=True)]
    return seconds[plain], seconds[recording], added


def _measure(count: int, blocks: int, seed: int, folder: Path) -> list[dict[str, Any]]:
    stage(f"{count} memories")
    memory = _plain_memory(folder)
    fill_index(open_index(GuardedStore(memory.vector_store, None), "memories"), Encoder.load(), count, seed)
    hins_memory.attach(memory, settings=Settings(home=folder, project="capture"))
    calls = _Calls(memory, count, seed)
    rows = []
    for name, call in (("search", calls.search), ("add", calls.add)):
        for _ in range(5):
            call()
        fewer = name == "search" and count >= _MANY
        found = _paired(memory, name, call, max(2, blocks // 4) if fewer else blocks, seed)
        rows.append({"call": name, "memories": count, **_compare(*found)})
    memory.close()
    return rows


def _compare(
    plain: Sequence[Sequence[float]], recorded: Sequence[Sequence[float]], added: Sequence[float]
) -> dict[str, float]:
    ratios = [np.median(one) / np.median(other) for one, other in zip(recorded, plain, strict=True)]
    tails = [float(np.percentile(np.concatenate(blocks), 99)) * 1000 for blocks in (plain, recorded)]
    return {
        "calls": 2 * len(plain) * _BLOCK,
        "median_plain_ms": float(np.median(np.concatenate(plain))) * 1000,
        "median_recorded_ms": float(np.median(np.concatenate(recorded))) * 1000,
        "median_overhead": float(np.median(ratios)) - 1,
        "p99_plain_ms": tails[0],
        "p99_recorded_ms": tails[1],
        "median_added_ms": float(np.median(added)) * 1000,
        "p99_added_ms": float(np.percentile(added, 99)) * 1000,
    }


def _write_events(settings: Settings, who: int, events: int) -> None:
    """Record turns, memories and retrievals of one user as fast as possible; what one writer process does."""
    scope = Scope(user=f"user{who}")
    with Capture(settings) as capture:
        for number in range(events):
            text = f"{who}: {memory_text(number)}"
            capture.record(Turn(scope, "talk", "Ann", text))
            capture.record(Memory(f"{who}-{number}", scope, "talk", text))
            ranked = (RankedMemory(f"{who}-{number}", text, 0.5),)
            capture.record(Retrieval(scope=scope, query=text, results=ranked, encoder_version="stock"))
            # As often as a busy server might, so that the queue of retrievals is not what is measured.
            if number % 100 == 99:
                capture.flush(60)
        print(json.dumps({"flushed": capture.flush(60), "dropped": capture.dropped}))


def _writers(count: int, events: int, folder: Path) -> dict[str, Any]:
    """Let several processes write to one log at once; return how many events of theirs are not in it."""
    stage(f"{count} processes write {3 * events} events each")
    settings = Settings(home=folder, project="writers")
    started = time.perf_counter()
    command = [sys.executable, __file__, "--child"]
    jobs = [json.dumps({"home": str(folder), "who": who, "events": events}) for who in range(count)]
    processes = [subprocess.Popen([*command, job], stdout=subprocess.DEVNULL, env=dict(os.environ)) for job in jobs]
    failed = sum(process.wait() != 0 for process in processes)
    seconds = time.perf_counter() - started
    logs = list(LogReader(open_database(settings.database_url)).scope_logs())
    found = sum(len(log.turns) + len(log.memories) + len(log.retrievals) for log in logs)
    wanted = 3 * events * count
    return {
        "events": wanted,
        "lost_events": wanted - found,
        "failed_writers": failed,
        "events_per_second": wanted / seconds,
    }


def _run(arguments: argparse.Namespace) -> None:
    if arguments.child:
        job = json.loads(arguments.child)
        _write_events(Settings(home=Path(job["home"]), project="writers"), job["who"], job["events"])
        return
    quick = arguments.quick
    rows = []
    for count in arguments.sizes or (_QUICK_SIZES if quick else _SIZES):
        with tempfile.TemporaryDirectory(prefix="hins-capture-") as folder:
            rows += _measure(count, _QUICK_BLOCKS if quick else arguments.blocks, arguments.seed, Path(folder))
    with tempfile.TemporaryDirectory(prefix="hins-capture-") as folder:
        count, events = (_QUICK_WRITERS, _QUICK_EVENTS) if quick else (_WRITERS, _EVENTS)
        writers = _writers(count, events, Path(folder))
    figures = {
        "median_overhead": max(row["median_overhead"] for row in rows),
        "p99_added_ms": max(row["p99_added_ms"] for row in rows),
        "lost_events": writers["lost_events"] + writers["failed_writers"],
    }
    for row in rows:
        size = f"{row['memories'] // 1000}k" if row["memories"] >= 1000 else str(row["memories"])
        figures |= {f"{name}_{row['call']}_{size}": row[name] for name in ("median_overhead", "p99_added_ms")}
    names = ("call", "memories", "calls", "median_plain_ms", "median_recorded_ms", "p99_plain_ms", "p99_recorded_ms")
    show_table("capture", names, [[row[name] for name in names] for row in rows])
    show_table("figures", ("figure", "value"), [(name, f"{value:.4f}") for name, value in figures.items()])
    chosen = {"seed": arguments.seed, "quick": quick, "blocks": arguments.blocks, "writers": count}
    write_result(arguments.json, figures, [*rows, {"call": "writers", **writers}], chosen)


def main() -> None:
    """Parse the arguments and run."""
    parser = base_parser(str(__doc__).splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", metavar="N", help="how many memories (default 1k and 100k)")
    parser.add_argument("--blocks", type=int, default=_BLOCKS, metavar="N", help=f"pairs of blocks (default {_BLOCKS})")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    _run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(exit_status(main))
