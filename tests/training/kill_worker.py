"""Trains in a child process, kills the child at given moments, continues, and prints what came out; see test_resume.

Usage: kill_worker.py BASE FOLDER. It loads what training needs once and forks for each training; it trains nothing
itself, because torch's threads do not survive a fork.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from train_world import checkpoint_every, examples, quick

import hins_memory.training.fit.fit
import hins_memory.training.fit.tiered_trainer  # noqa: F401
from hins_memory.training import TrainSettings, train_encoder

# No child looks through the modules at each collection.
gc.freeze()
base, root = Path(sys.argv[1]), Path(sys.argv[2])
SETTINGS = quick(min_steps=14)
TOWER = quick(mode="tower", min_steps=14)
QUERIES = quick(mode="query", min_steps=14)


def train(folder: Path, settings: TrainSettings, progress: Callable[[str, int, int], None] | None = None) -> None:
    train_encoder(
        examples(),
        folder / "model",
        base=base,
        settings=settings,
        progress=progress,
        checkpoints=folder / "checkpoints",
    )


def digest(folder: Path) -> str:
    weights = sorted((folder / "model").rglob("*.safetensors"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in weights)).hexdigest()


def steps(folder: Path, complete: bool) -> list[int]:
    found = (folder / "checkpoints").glob("checkpoint-*")
    return sorted(int(path.name[11:]) for path in found if (path / "complete.json").exists() == complete)


def trained(folder: Path, due: Callable[[int], bool] | None = None, settings: TrainSettings = SETTINGS) -> list[int]:
    """Train in a child; kill it as soon as `due` says so, given the number of the step. Return the steps it made."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        try:
            train(folder, settings, lambda _, done, total: os.write(writer, bytes([done])))
            os._exit(0)
        finally:
            os._exit(1)
    os.close(writer)
    os.set_blocking(reader, False)
    seen: list[int] = []
    status, started = 0, time.monotonic()
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        assert time.monotonic() - started < 120, "it hangs"
        if due is not None and due(seen[-1] if seen else 0):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            break
        with contextlib.suppress(BlockingIOError):
            seen += os.read(reader, 64)
        time.sleep(0.0005)
    else:
        status = ended[1]
        assert due is None, "it ended before it was killed"
        with contextlib.suppress(BlockingIOError):
            seen += os.read(reader, 64)
    assert status == 0, "training failed"
    os.close(reader)
    return seen


def main() -> None:
    undisturbed = root / "undisturbed"
    trained(undisturbed)
    report = {"undisturbed": digest(undisturbed), "points": {}}
    points: dict[str, Callable[[Path], Callable[[int], bool]]] = {
        "before the first checkpoint": lambda folder: lambda step: step >= 1,
        "while a checkpoint is written": lambda folder: lambda step: 6 in steps(folder, complete=False),
        "between checkpoints": lambda folder: lambda step: step >= 10,
        "after the last step": lambda folder: lambda step: (folder / "model").exists(),
    }
    for name, due in points.items():
        folder = root / name.replace(" ", "-")
        trained(folder, due(folder))
        partial, complete = steps(folder, complete=False), steps(folder, complete=True)
        # The caller removes what was half saved, see open_run.
        if (folder / "model").exists():
            (folder / "model").rename(folder / "half")
        made = trained(folder)
        report["points"][name] = {
            "partial": partial,
            "complete": complete,
            "continued": made[:1],
            "digest": digest(folder),
        }
    trained(root / "tower", settings=TOWER)
    trained(root / "tower-cut", lambda step: step >= 10, TOWER)
    made = trained(root / "tower-cut", settings=TOWER)
    same = digest(root / "tower") == digest(root / "tower-cut")
    report["tower"] = {"continued": made[:1], "same": same}
    # Made of steps of milliseconds, a map of the queries begins anew.
    for name, due in (("queries", None), ("queries-cut", lambda step: step >= 5)):
        trained(root / name, due, QUERIES)
    cut = (root / "queries-cut" / "model").exists()
    made = trained(root / "queries-cut", settings=QUERIES)
    report["queries"] = {"cut": not cut, "continued": made[:1]}
    report["queries"]["same"] = digest(root / "queries") == digest(root / "queries-cut")
    print(json.dumps(report))  # noqa: T201


checkpoint_every(3)
main()
