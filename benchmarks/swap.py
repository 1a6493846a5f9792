"""What a swap does to a Mem0 that is being used: searches, writes, the flip, and how fast it re-embeds.

    python benchmarks/swap.py --json result.json
    python benchmarks/swap.py --store pgvector --ray 2 --json result.json

Stores in embedded Qdrant are swapped to an encoder of the same size with another space. First a small one without
searches: its throughput is compared with adding memories one by one through Mem0's `add(infer=False)`, half before
and half after it, in the same process. Then a large one, while four threads search and one adds, updates and deletes
through the whole swap: each search asks for a stored text, which finds itself with a cosine of 1 unless query and
index are of two encoders. Then it is rolled back, and the old index is dropped. The threads wait between two calls
(--pause): one search of embedded Qdrant takes two thirds of a second of Python at 100,000 memories, and it answers one
call at a time, so that without pauses a latency is mostly the waiting of the threads for one another.

With ``--store pgvector`` the large store is a PostgreSQL of the package pgserver without an approximate index: a search
that misses what is there is then the swap's fault. With ``--ray 2`` the workers of a Ray cluster embed. With either,
the small store is left out.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hins_memory import Memory
from hins_memory.config import Settings
from hins_memory.encoders.encoder import Encoder
from hins_memory.loop.settings import LoopSettings
from hins_memory.loop.shards import spread_encoder
from hins_memory.registry.loader import EncoderSource
from hins_memory.registry.registry import Registry
from hins_memory.swapping import retire_agent, rollback_agent, swap_agent
from parts.common.cluster import ray_cluster
from parts.common.command import base_parser, exit_status
from parts.common.results import write_result
from parts.common.screen import show_table, stage
from parts.swapping.load import Load, agent_behind, check_store, fill_store, memory_text, percentile, shaken_version

_COUNT, _QUICK_COUNT = 100_000, 1_000
# The throughput does not depend on how many there are.
_RATE_COUNT, _QUICK_RATE_COUNT = 10_000, 200
_READDED, _QUICK_READDED = 600, 60
_BASELINE_SECONDS, _QUICK_BASELINE_SECONDS = 180.0, 3.0
_PAUSE, _QUICK_PAUSE = 5.0, 0.2
# A server answers several at once, each in a tenth of a second at 100,000 memories.
_SERVER_PAUSE, _SERVER_BASELINE_SECONDS = 1.0, 20.0
_SEARCHERS = 4
_STORES = {"qdrant": "embedded Qdrant", "pgvector": "PostgreSQL with pgvector"}


def _one_by_one(memory: Any, first: int, count: int) -> float:
    """Return the seconds that adding `count` memories one by one through Mem0 takes."""
    started = time.perf_counter()
    for number in range(first, first + count):
        memory.add(memory_text(number), user_id="again", infer=False, capture=False)
    return time.perf_counter() - started


def _throughput(registry: Registry, version: str, quick: bool, folder: Path) -> dict[str, Any]:
    """Swap a store without searches, and add to an empty one before and after; return both rates."""
    count = _QUICK_RATE_COUNT if quick else _RATE_COUNT
    memory = Memory(settings=Settings(home=folder, project="rate"), capture=False)
    fill_store(memory, count)
    other = Memory(settings=Settings(home=folder, project="again"), capture=False)
    # Texts that no encoder of this process has in its cache.
    first, half = 10 * count, (_QUICK_READDED if quick else _READDED) // 2
    _one_by_one(other, first - 5, 5)
    adding = _one_by_one(other, first, half)
    stage(f"swapping {count} memories without searches")
    encoder = Encoder.load(registry.get(version).path)
    report = swap_agent(agent_behind(memory), version, encoder, registry)
    adding += _one_by_one(other, first + half, half)
    other.close()
    memory.close()
    records = sum(index.written for index in report.indexes)
    return {"reembedded": records, "reembed_per_second": records / report.seconds, "add_per_second": 2 * half / adding}


@contextlib.contextmanager
def _store(kind: str, dim: int) -> Iterator[dict[str, Any]]:
    """Yield the settings of an empty store, as Mem0 has them."""
    if kind == "qdrant":
        yield {}
        return
    import pgserver

    # A folder that the server's own user may enter.
    with tempfile.TemporaryDirectory(prefix="hins-pg-") as folder:
        server = pgserver.get_server(Path(folder))  # type: ignore[attr-defined]  # not in its __all__
        config = {"connection_string": server.get_uri(), "collection_name": "swap", "embedding_model_dims": dim}
        # A connection for each thread, and for the swap.
        yield {"vector_store": {"provider": kind, "config": config | {"hnsw": False, "maxconn": _SEARCHERS + 4}}}
        server.cleanup()


def _live(memory: Any, registry: Registry, encoder: Encoder, load: Load, baseline: float) -> dict[str, Any]:
    """Swap while the store is used; return what was seen."""
    version = encoder.version
    with load:
        time.sleep(baseline)
        began = time.perf_counter()
        stage("swapping while the store is used")
        report = swap_agent(agent_behind(memory), version, encoder, registry)
        ended = time.perf_counter()
        time.sleep(baseline / 4)
    before = [call.seconds for call in load.calls if call.started + call.seconds < began]
    during = [call.seconds for call in load.calls if call.started + call.seconds >= began and call.started <= ended]
    lost, wrong = check_store(memory, load, load.seed)
    faults = [call.fault for call in load.calls if call.fault]
    return {
        "searches": len(load.calls),
        "failed_searches": sum(fault.startswith("failed") for fault in faults),
        "mixed_searches": sum(fault.startswith("mixed") for fault in faults) + wrong,
        "writes": len(load.written) + len(load.deleted),
        "lost_writes": lost + len(load.write_failures),
        "faults": [*faults[:5], *load.write_failures[:5]],
        "swap_seconds": report.seconds,
        "swap_reembedded": sum(index.written for index in report.indexes),
        "flip_ms": report.flip_seconds * 1000,
        "p50_before_ms": percentile(before, 50),
        "p50_during_ms": percentile(during, 50),
        "p99_before_ms": percentile(before, 99),
        "p99_during_ms": percentile(during, 99),
    }


def _back(memory: Any, registry: Registry) -> dict[str, Any]:
    agent = agent_behind(memory)
    # Also the starter, with which a new store begins.
    report = rollback_agent(agent, registry, EncoderSource(registry).by_version)
    written = sum(index.written for index in report.indexes)
    retire_agent(agent, registry)
    return {
        "rollback_seconds": report.seconds,
        "rollback_flip_ms": report.flip_seconds * 1000,
        "rollback_reembedded": written,
    }


def _run(arguments: Any) -> None:
    quick, server = arguments.quick, arguments.store != "qdrant"
    count = arguments.memories or (_QUICK_COUNT if quick else _COUNT)
    pause = arguments.pause or (_QUICK_PAUSE if quick else _SERVER_PAUSE if server else _PAUSE)
    baseline = _QUICK_BASELINE_SECONDS if quick else _SERVER_BASELINE_SECONDS if server else _BASELINE_SECONDS
    rates: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hins-swap-")))
        if not server and not arguments.ray:
            registry = Registry(Settings(home=folder, project="rate"))
            rates = _throughput(registry, shaken_version(registry, folder / "shaken1", 1).id, quick, folder)
        settings = Settings(home=folder, project="swap")
        registry = Registry(settings)
        encoder = Encoder.load(shaken_version(registry, folder / "shaken2", 2).path)
        memory = Memory(stack.enter_context(_store(arguments.store, encoder.dim)), settings=settings)
        fill_store(memory, count)
        if arguments.ray:
            address = stack.enter_context(ray_cluster(arguments.ray))
            encoder = spread_encoder(settings, LoopSettings(ray=address), encoder)
        load = Load(memory, count, _SEARCHERS, pause, arguments.seed)
        seen = _live(memory, registry, encoder, load, baseline)
        stage("rolling back")
        back = _back(memory, registry)
        memory.close()
    row = {"memories": count, **rates, **seen, **back}
    names = ["failed_searches", "mixed_searches", "lost_writes", "flip_ms", "p99_before_ms", "p99_during_ms"]
    figures = {name: row[name] for name in (*names, "rollback_flip_ms")}
    if rates:
        figures["reembed_speedup"] = rates["reembed_per_second"] / rates["add_per_second"]
    show_table("swap", ("what", "value"), [(name, value) for name, value in row.items() if name != "faults"])
    show_table("figures", ("figure", "value"), list(figures.items()))
    for fault in seen["faults"]:
        stage(f"[red]{fault}[/red]")
    chosen = {"seed": arguments.seed, "quick": quick, "pause": pause, "searchers": _SEARCHERS}
    write_result(arguments.json, figures, [row], chosen | {"store": _STORES[arguments.store], "ray": arguments.ray})


def main() -> None:
    """Parse the arguments and run."""
    parser = base_parser(str(__doc__).splitlines()[0])
    parser.add_argument("--memories", type=int, metavar="N", help=f"how many memories (default {_COUNT})")
    parser.add_argument("--store", choices=_STORES, default="qdrant", help="what holds the memories (default qdrant)")
    parser.add_argument("--ray", type=int, default=0, metavar="N", help="N workers of a Ray cluster embed")
    parser.add_argument(
        "--pause",
        type=float,
        metavar="SECONDS",
        help="mean pause between two calls of a thread (default 5, with a server 1, quick 0.2)",
    )
    _run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(exit_status(main))
