"""Processor time of this process and of a database server beside it: what other work on the machine does not change."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

__all__ = ["Spent", "measured", "server_seconds"]


@dataclass(slots=True)
class Spent:
    """What a block took: seconds on the clock, and of processors, the server's included."""

    wall: float = 0.0
    processor: float = 0.0


@contextmanager
def measured(server: int | None = None) -> Iterator[Spent]:
    """Measure the block; `server` is the process id of the database's server, if there is one."""
    spent = Spent()
    began = (time.perf_counter(), time.process_time() + server_seconds(server))
    try:
        yield spent
    finally:
        spent.wall = time.perf_counter() - began[0]
        spent.processor = time.process_time() + server_seconds(server) - began[1]


def server_seconds(server: int | None) -> float:
    """Return the processor seconds of a server's processes so far, those that have ended included."""
    if server is None:
        return 0.0
    import psutil

    process = psutil.Process(server)
    total = sum(process.cpu_times()[:4])
    for child in process.children(recursive=True):
        try:
            total += sum(child.cpu_times()[:2])
        except psutil.NoSuchProcess:
            # It ended meanwhile, and counts for its parent in the next measurement.
            continue
    return float(total)
