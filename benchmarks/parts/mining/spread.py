"""``hins mine`` on one log: a process, several with a share of the owners each, and the workers of a Ray cluster."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hins_memory.common.files import file_digest
from hins_memory.config import Settings
from hins_memory.database.engine import open_database
from hins_memory.errors import HinsError
from hins_memory.log.writer import LogWriter
from hins_memory.types import Event
from parts.common.cluster import ray_cluster
from parts.common.screen import stage
from parts.mining.synthetic import Plan, WordVectors, chats, synthetic_logs

__all__ = ["figures_of", "spread_rows", "static_encoder"]

_WHOLE = "whole"
_BATCH = 5_000
_DIM = 384
_SECONDS = 0.2


def static_encoder(folder: Path) -> Path:
    """Write an encoder that adds up a random vector for each token: it costs little, so that mining is measured.

    Args:
        folder: where it goes.
    """
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Normalize, StaticEmbedding
    from tokenizers import Tokenizer

    from hins_memory.encoders.encoder import resolve_model

    torch.manual_seed(7)
    tokenizer = Tokenizer.from_file(str(Path(resolve_model("stock")) / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    layers = [StaticEmbedding(tokenizer, embedding_dim=_DIM), Normalize()]
    SentenceTransformer(modules=layers, device="cpu").save(str(folder))
    return folder


def spread_rows(plan: Plan, workers: int, data: Path | None) -> list[dict[str, Any]]:
    """Mine one log by one process, by `workers` processes with a share each, and by a cluster with as many CPUs.

    All are commands of their own, measured from their start to their end; the cluster is there before. What each share
    gives is a file of its own, so that nothing puts the examples of those processes together.

    Args:
        plan: what the log holds.
        workers: how many processes, and CPUs of the cluster.
        data: a Synthetic-Persona-Chat file, or generated text.
    """
    with tempfile.TemporaryDirectory(prefix="hins-mining-") as scratch:
        home = Path(scratch)
        static_encoder(home / "encoder")
        stage(f"writing a log of {plan.memories} memories of {plan.users} users")
        shares = [f"share{number}" for number in range(workers)]
        _write_logs(home, plan, shares, data)
        rows, about = [], {"memories": plan.memories, "users": plan.users}
        for miner, projects in (("one process", [_WHOLE]), (f"{workers} processes", shares)):
            stage(f"mining by {miner}")
            rows.append(about | {"miner": miner} | _mined(home, projects))
        with ray_cluster(workers) as address:
            miner = f"Ray, {workers} workers"
            stage(f"mining by {miner}")
            rows.append(about | {"miner": miner} | _mined(home, [_WHOLE], address))
        return rows


def figures_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return how the cluster's time and processor time compare with the others', and whether the file is the same."""
    one, several, cluster = rows
    return {
        "ray_to_one_process": cluster["seconds"] / one["seconds"],
        "ray_to_several_processes": cluster["seconds"] / several["seconds"],
        "ray_to_one_process_processor": cluster["processor_seconds"] / one["processor_seconds"],
        "ray_to_several_processes_processor": cluster["processor_seconds"] / several["processor_seconds"],
        "same_file": float(cluster["digest"] == one["digest"]),
    }


def _write_logs(home: Path, plan: Plan, shares: Sequence[str], data: Path | None) -> None:
    """Write the log, and its owners in turn into as many others."""
    writers = {
        name: LogWriter(open_database(Settings(home=home, project=name).database_url)) for name in (_WHOLE, *shares)
    }
    waiting: dict[str, list[Event]] = {name: [] for name in writers}

    def write(name: str, least: int) -> None:
        if len(waiting[name]) >= least:
            writers[name].write(waiting[name])
            waiting[name].clear()

    for number, log in enumerate(synthetic_logs(chats(data), plan, WordVectors())):
        for name in (_WHOLE, shares[number % len(shares)]):
            waiting[name] += [*log.memories, *log.retrievals, *log.answers, *log.feedback]
            write(name, _BATCH)
    for name in writers:
        write(name, 1)


class _Watched:
    """Processor seconds and peak memory of all processes below this one, by looking at them again and again.

    Ray's workers end with their driver, and no process waits for them: the system forgets what they used.
    """

    def __init__(self) -> None:
        self._seconds: dict[tuple[int, float], float] = {}
        #: MiB of the largest of them
        self.peak = 0.0
        self.look()
        self._before = sum(self._seconds.values())

    def look(self) -> None:
        import psutil

        for one in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error, OSError, StopIteration):
                used = one.cpu_times()
                self._seconds[one.pid, one.create_time()] = used.user + used.system
                lines = Path(f"/proc/{one.pid}/status").read_text().splitlines()
                peak = int(next(line for line in lines if line.startswith("VmHWM:")).split()[1])
                self.peak = max(self.peak, peak / 2**10)

    @property
    def seconds(self) -> float:
        """Processor seconds since the beginning, but for what was used in the last fifth of a second of each."""
        return sum(self._seconds.values()) - self._before


def _mined(home: Path, projects: Sequence[str], address: str = "") -> dict[str, Any]:
    """Run ``hins mine`` for each project at once; return what it took and what came of it."""
    import pyarrow.parquet as pq

    environment = os.environ | {"HINS_HOME": str(home), "HINS_BASE": str(home / "encoder"), "OMP_NUM_THREADS": "1"}
    spread = ["--ray", address] if address else []
    files = [home / f"{project}{len(spread)}.parquet" for project in projects]
    watched, began = _Watched(), time.perf_counter()
    with (home / "errors").open("w+") as errors:
        running = [
            subprocess.Popen(
                [sys.executable, "-m", "hins_memory", "--project", one, "mine", *spread, "--output", str(file)],
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )
            for one, file in zip(projects, files, strict=True)
        ]
        while any(one.poll() is None for one in running):
            time.sleep(_SECONDS)
            watched.look()
        seconds = time.perf_counter() - began
        errors.seek(0)
        if any(one.returncode for one in running):
            raise HinsError(f"Mining failed: {errors.read()[-2000:]}")
    return {
        "examples": sum(pq.read_metadata(file).num_rows for file in files),
        "seconds": seconds,
        "processor_seconds": watched.seconds,
        "peak_mib": watched.peak,
        "digest": file_digest(files[0]) if len(files) == 1 else "",
    }
