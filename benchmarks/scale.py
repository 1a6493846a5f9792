"""How each stage grows with the number of memories, and what that says of more than were measured.

    python benchmarks/scale.py --json result.json

Logs of synthetic users are written, read an owner at a time, and mined; then one user is purged. The miner's vectors
cost almost nothing, so that mining itself is measured. A Mem0 in embedded Qdrant is swapped to an encoder of
all-MiniLM-L6-v2's size, which embeds everything again. Costs are processor seconds, which other work on the machine
changes little, though a cache that is shared with it shows; so of several measurements of a size the least counts. The
growth is a fixed cost and a power law, fitted to those; its exponent and what it says of larger sizes have 95%
intervals, which hold as long as the law does: no measurement shows that beyond the sizes that were measured.
"""

from __future__ import annotations

import gc
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from hins_memory import Memory
from hins_memory.config import Settings
from hins_memory.database.engine import open_database
from hins_memory.encoders.encoder import Encoder
from hins_memory.log.reader import LogReader
from hins_memory.log.writer import LogWriter
from hins_memory.mining import MineSettings, mine_to_parquet
from hins_memory.registry.registry import Registry
from hins_memory.swapping import swap_agent
from hins_memory.types import Event
from parts.common.command import base_parser, exit_status
from parts.common.growth import fit_growth
from parts.common.processor import measured
from parts.common.results import write_result
from parts.common.screen import show_table, stage
from parts.mining.synthetic import Plan, WordVectors, chats, synthetic_logs
from parts.swapping.load import agent_behind, fill_store, shaken_version

_SIZES, _QUICK_SIZES = (3_000, 6_000, 12_000, 25_000, 50_000, 100_000), (100, 200, 400, 800, 1_600)
_SWAPS, _QUICK_SWAPS = (500, 1_000, 2_000, 4_000, 8_000), (25, 50, 100, 200, 400)
_REPEATS = 2
_BATCH = 500
#: Sizes that the growth is told for.
_TOLD = (1e6, 1e9)
_STAGES = ("write", "read", "mine", "purge", "reembed")


def _log_stages(size: int, seed: int) -> Iterator[tuple[str, float]]:
    """Yield the processor seconds of each stage that works on a log of that size."""
    model = WordVectors()
    # A garbage collection in the midst of a stage would walk through whatever was loaded before.
    gc.collect()
    gc.freeze()
    with tempfile.TemporaryDirectory() as folder:
        engine = open_database(f"sqlite:///{folder}/log.db")
        writer, reader = LogWriter(engine), LogReader(engine)
        seconds = 0.0
        for log in synthetic_logs(chats(None), Plan(size, seed=seed), model):
            events: list[Event] = [*log.memories, *log.retrievals, *log.answers, *log.feedback]
            with measured() as spent:
                for start in range(0, len(events), _BATCH):
                    writer.write(events[start : start + _BATCH])
            seconds += spent.processor
        yield "write", seconds
        with measured() as spent:
            for _ in reader.scope_logs():
                pass
        yield "read", spent.processor
        # Its table of random numbers is made before: that costs as much as mining a thousand memories.
        encoder, settings = cast(Encoder, WordVectors()), MineSettings(seed=seed)
        with measured() as spent:
            mine_to_parquet(reader.scope_logs(), encoder, Path(folder) / "examples.parquet", settings)
        yield "mine", spent.processor
        with measured() as spent:
            writer.purge("user1")
        yield "purge", spent.processor
        engine.dispose()


def _swap(size: int, seed: int) -> float:
    """Return the processor seconds of a swap that embeds that number of memories again."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(home=Path(folder), project="scale")
        registry = Registry(settings)
        version = shaken_version(registry, Path(folder) / "shaken", seed)
        encoder = Encoder.load(version.path)
        memory = Memory(settings=settings, capture=False)
        fill_store(memory, size)
        gc.collect()
        gc.freeze()
        with measured() as spent:
            swap_agent(agent_behind(memory), version.id, encoder, registry)
        memory.close()
    return spent.processor


def _growth(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for name in _STAGES:
        mine = [(row["memories"], row["processor_seconds"]) for row in rows if row["stage"] == name]
        least = {size: min(seconds for other, seconds in mine if other == size) for size, _ in mine}
        if len(least) > 4:
            growth = fit_growth([*least], [*least.values()], fixed=True)
            found.append({"growth": name, **growth.to_dict(*_TOLD)})
    return found


def _table(growth: Sequence[dict[str, Any]]) -> None:
    columns = [
        "stage",
        "exponent",
        "low",
        "high",
        *(f"hours at {size:g} ({end})" for size in _TOLD for end in ("", "low", "high")),
    ]
    rows = []
    for one in growth:
        told = [one["at"][f"{size:g}"][end] / 3600 for size in _TOLD for end in ("value", "low", "high")]
        exponents = [f"{one[name]:.3f}" for name in ("exponent", "exponent_low", "exponent_high")]
        rows.append([one["growth"], *exponents, *(f"{hours:.3g}" for hours in told)])
    show_table("growth, in hours of one processor core", columns, rows)


def main() -> None:
    """Measure, print and write the result."""
    parser = base_parser(__doc__ or "")
    parser.add_argument("--sizes", type=int, nargs="+", help=f"memories in the log (default {_SIZES})")
    parser.add_argument("--repeats", type=int, default=_REPEATS, help=f"measurements of each (default {_REPEATS})")
    parser.add_argument("--swaps", type=int, nargs="*", help=f"memories that are embedded again (default {_SWAPS})")
    arguments = parser.parse_args()
    sizes = arguments.sizes or (_QUICK_SIZES if arguments.quick else _SIZES)
    swaps = arguments.swaps if arguments.swaps is not None else (_QUICK_SWAPS if arguments.quick else _SWAPS)
    rows: list[dict[str, Any]] = []

    def keep() -> None:
        growth = _growth(rows)
        figures = {
            f"{one['growth']}_{name}": one[name]
            for one in growth
            for name in ("exponent", "exponent_low", "exponent_high")
        }
        settings = {"sizes": list(sizes), "swaps": list(swaps), "repeats": arguments.repeats, "seed": arguments.seed}
        write_result(arguments.json, figures, [*rows, *growth], settings)

    # A first call of anything takes longer than the others.
    list(_log_stages(sizes[0], arguments.seed))
    for repeat in range(arguments.repeats):
        for size in sizes:
            stage(f"a log of {size} memories")
            for name, seconds in _log_stages(size, arguments.seed + repeat):
                rows.append({"stage": name, "memories": size, "processor_seconds": seconds})
            keep()
        for size in swaps:
            stage(f"a swap of {size} memories")
            seconds = _swap(size, arguments.seed + repeat)
            rows.append({"stage": "reembed", "memories": size, "processor_seconds": seconds})
            keep()
    _table(_growth(rows))


if __name__ == "__main__":
    sys.exit(exit_status(main))
