"""The log itself: how many events processes write in a second, and what reading takes as it grows.

    python benchmarks/log.py --json result.json

SQLite beside PostgreSQL (pgserver, or the server of --postgresql). A search with ten results, a turn, a memory and an
answer are four events; an owner has 400. First 1, 8 and 32 processes write to one log at once. Then one process fills a
log, and at each size it is counted (`hins status`), owners are read one by one, the latest page is read, and a
retention looks through everything and removes a tenth of the searches. Each figure has the time on the clock and that
of the processors, the server's included, which other work on the machine does not change.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from hins_memory.database.engine import open_database, reading
from hins_memory.errors import LogError
from hins_memory.log.reader import LogReader
from hins_memory.log.retain import retain
from hins_memory.log.writer import LogWriter
from hins_memory.types import Answer, Event, Memory, RankedMemory, Retrieval, Scope, Turn, now
from parts.common.command import base_parser, exit_status
from parts.common.growth import fit_growth
from parts.common.processor import measured, server_seconds
from parts.common.results import write_result
from parts.common.screen import show_table, stage

_SIZES, _QUICK_SIZES = (10_000, 30_000, 100_000, 300_000, 1_000_000), (1_000, 4_000)
_WRITERS, _QUICK_WRITERS = (1, 8, 32), (1, 2)
_EVENTS, _QUICK_EVENTS = 32_000, 800
_OWNER_EVENTS, _PER_SEARCH, _BATCH = 400, 4, 500
_READ_OWNERS = 20
_DAY = 86_400.0
_TEXT = "A sentence as people say it to an assistant that remembers things for them, number {}."


@contextmanager
def _database(kind: str, server: str | None, folder: Path) -> Iterator[tuple[str, int | None]]:
    """Give the URL of an empty log, and the process id of its server."""
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'log.db'}", None
        return
    if server is not None:
        yield server, None
        return
    import pgserver

    running = pgserver.get_server(folder / "postgresql")  # type: ignore[attr-defined]  # not in its __all__
    try:
        yield running.get_uri().replace("postgresql://", "postgresql+psycopg://", 1), running.get_pid()
    finally:
        running.cleanup()


def _events(owner: str, first: int, count: int, time_of: float) -> list[Event]:
    """Return the events of some searches of an owner."""
    scope, events = Scope(user=owner), list[Event]()
    for n in range(first, first + count // _PER_SEARCH):
        results = tuple(RankedMemory(f"{owner}-m{max(n - rank, 0)}", _TEXT.format(n - rank), 0.5) for rank in range(10))
        events += [
            Turn(scope, f"c{n // 20}", "Ann", _TEXT.format(n), time_of, f"{owner}-t{n}"),
            Memory(f"{owner}-m{n}", scope, f"c{n // 20}", _TEXT.format(n), "Ann", (f"{owner}-t{n}",), time=time_of),
            Retrieval(scope, _TEXT.format(n), results, "v", time_of, f"{owner}-r{n}"),
            Answer(f"{owner}-r{n}", _TEXT.format(n), time_of),
        ]
    return events


def _write(url: str, name: str, count: int, start: Any, results: Any) -> None:
    """Write events as captures do, a batch a transaction, once all processes are ready."""
    writer = LogWriter(open_database(url))
    start.wait()
    began, done, locked = time.process_time(), 0, 0
    while done < count:
        size = min(_BATCH, count - done)
        try:
            writer.write(_events(name, done // _PER_SEARCH, size, now()))
        except LogError:
            # It waited half a minute for the others. A capture keeps its events and tries again, too.
            locked += 1
            continue
        done += size
    results.put((time.process_time() - began, locked))


def _writers(url: str, server: int | None, processes: int, events: int) -> dict[str, Any]:
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(processes + 1), context.Queue()
    each = events // processes
    working = [
        context.Process(target=_write, args=(url, f"w{processes}-{number}", each, start, results))
        for number in range(processes)
    ]
    for process in working:
        process.start()
    start.wait()
    began, of_server = time.perf_counter(), server_seconds(server)
    told = [results.get() for _ in working]
    spent, locked = (sum(values) for values in zip(*told, strict=True))
    seconds = time.perf_counter() - began
    spent += server_seconds(server) - of_server
    for process in working:
        process.join()
    written = each * processes
    return {
        "writers": processes,
        "events": written,
        "events_per_second": written / seconds,
        "processor_us_per_event": 1e6 * spent / written,
        "gave_up_waiting": locked,
    }


def _fill(engine: sa.Engine, server: int | None, begun: int, size: int) -> dict[str, Any]:
    with measured(server) as spent:
        for first in range(begun, size, _OWNER_EVENTS):
            # A tenth of the owners is old.
            age = 100 * _DAY if (first // _OWNER_EVENTS) % 10 == 0 else 0.0
            LogWriter(engine).write(_events(f"u{first // _OWNER_EVENTS}", 0, _OWNER_EVENTS, now() - age))
    if engine.dialect.name == "postgresql":
        # As autovacuum does, in its own time.
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM ANALYZE")
    written = size - begun
    return {
        "filled_per_second": written / spent.wall,
        "fill_processor_us_per_event": 1e6 * spent.processor / written,
        "bytes_per_event": _bytes(engine) / size,
    }


def _bytes(engine: sa.Engine) -> int:
    """Return what the log takes on disk, indexes included."""
    with reading(engine).connect() as connection:
        if engine.dialect.name == "sqlite":
            pages = [connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in ("page_count", "page_size")]
            return int(pages[0] * pages[1])
        return int(connection.exec_driver_sql("SELECT pg_database_size(current_database())").scalar_one())


def _timed(name: str, work: Callable[[], object], server: int | None, repeats: int) -> dict[str, float]:
    spent = []
    for _ in range(repeats):
        with measured(server) as one:
            work()
        spent.append(one)
    return {
        f"{name}_ms": 1000 * statistics.median(one.wall for one in spent),
        f"{name}_processor_ms": 1000 * statistics.mean(one.processor for one in spent),
    }


def _reads(engine: sa.Engine, server: int | None, size: int) -> dict[str, float]:
    reader, owners = LogReader(engine), size // _OWNER_EVENTS
    chosen = iter([Scope(user=f"u{1 + n * (owners - 1) // _READ_OWNERS}") for n in range(_READ_OWNERS)])
    row = _timed("status", reader.counts, server, 3)
    row |= _timed("owner", lambda: list(reader.scope_logs([next(chosen)])), server, _READ_OWNERS)
    row |= _timed("latest", lambda: reader.latest(20), server, 5)
    return row | _timed("retain_look", lambda: retain(engine, 90, dry_run=True), server, 1)


def _writing(kind: str, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder, _database(kind, arguments.postgresql, Path(folder)) as (url, server):
        for processes in arguments.writers:
            stage(f"{kind}: {processes} writers")
            open_database(url)
            yield {"store": kind, **_writers(url, server, processes, arguments.events)}


def _reading(kind: str, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder, _database(kind, arguments.postgresql, Path(folder)) as (url, server):
        engine, begun = open_database(url), 0
        for size in arguments.sizes:
            stage(f"{kind}: {size} events")
            filled = _fill(engine, server, begun, size)
            yield {"store": kind, "events": size, **filled, **_reads(engine, server, size)}
            begun = size
        with measured(server) as spent:
            removed = retain(engine, 90).removed["retrievals"]
        took = {"retain_seconds": spent.wall, "retain_processor_seconds": spent.processor}
        yield {"store": kind, "events": begun, "retained_searches": removed, **took}
        engine.dispose()


def _growth(rows: Sequence[dict[str, Any]], kind: str) -> Iterator[dict[str, Any]]:
    for what in ("status_processor_ms", "owner_processor_ms", "retain_look_processor_ms"):
        mine = [(row["events"], row[what]) for row in rows if row["store"] == kind and what in row]
        if len(mine) > 2:
            yield {"store": kind, "what": what, **fit_growth(*zip(*mine, strict=True)).to_dict()}


def _keep(rows: Sequence[dict[str, Any]], arguments: argparse.Namespace) -> None:
    """Write what there is so far: a run that is stopped has its figures."""
    figures = {}
    for row in rows:
        if "writers" in row:
            figures[f"{row['store']}_{row['writers']}_writers_events_per_second"] = row["events_per_second"]
        for what in ("status_ms", "owner_ms"):
            if what in row:
                figures[f"{row['store']}_{row['events']}_{what}"] = row[what]
    settings = {name: getattr(arguments, name) for name in ("sizes", "writers", "events", "stores")}
    write_result(arguments.json, figures, rows, settings | {"processors": os.cpu_count()})


def main() -> None:
    """Measure, print and write the result."""
    parser = base_parser(__doc__ or "")
    parser.add_argument("--sizes", type=int, nargs="+", help=f"events in the log that is read (default {_SIZES})")
    parser.add_argument("--writers", type=int, nargs="+", help=f"processes that write at once (default {_WRITERS})")
    parser.add_argument("--stores", nargs="+", default=["sqlite", "postgresql"], choices=["sqlite", "postgresql"])
    parser.add_argument("--postgresql", metavar="URL", help="an empty database of a server that runs, not pgserver")
    arguments = parser.parse_args()
    arguments.sizes = arguments.sizes or (_QUICK_SIZES if arguments.quick else _SIZES)
    arguments.writers = arguments.writers or (_QUICK_WRITERS if arguments.quick else _WRITERS)
    arguments.events = _QUICK_EVENTS if arguments.quick else _EVENTS
    rows: list[dict[str, Any]] = []
    for kind in arguments.stores:
        for measure in (_writing, _reading):
            for row in measure(kind, arguments):
                rows.append(row)
                _keep(rows, arguments)
        rows += _growth(rows, kind)
    _keep(rows, arguments)
    for title, name in (
        ("writing", "writers"),
        ("reading", "status_ms"),
        ("retention", "retain_seconds"),
        ("growth", "what"),
    ):
        shown = [{key: value for key, value in row.items() if key != "at"} for row in rows if name in row]
        show_table(title, list(shown[0]) if shown else [], [list(row.values()) for row in shown])


if __name__ == "__main__":
    sys.exit(exit_status(main))
