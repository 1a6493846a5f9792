"""The gradient steps of a run, in this process or by workers of a Ray cluster."""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hins_memory.cluster import connect, in_workers
from hins_memory.encoders.manifest import Description
from hins_memory.errors import TrainingError
from hins_memory.loop.settings import LoopSettings
from hins_memory.registry.loader import shared_encoder
from hins_memory.types import Progress

if TYPE_CHECKING:
    from hins_memory.training import TrainingRun, TrainResult

__all__ = ["TrainWork", "train_run", "train_worker"]

_STEPS, _TRAINED = "steps.json", "trained.json"
# How often the workers write how far they are, and the driver reads it.
_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class TrainWork:
    """What is the same for all workers of a training.

    Attributes:
        folder: the run's folder, on a file system that all nodes share.
        skills: which packaged sets of memory skills training looks at; None means all.
    """

    folder: Path
    skills: Sequence[str] | None


def train_run(run: TrainingRun, loop: LoopSettings, progress: Progress | None = None) -> TrainResult:
    """Train what an open run holds, by workers of the cluster that the settings name, else in this process.

    Under ``torchrun`` or ``accelerate launch`` the processes that they started train.

    Args:
        run: what to train; its folder takes the checkpoints and the model.
        loop: settings of every stage.
        progress: called as (``train``, steps done, steps in all); where a cluster trains, in a thread of its own.

    Raises:
        HinsError: as `train_encoder`; or there is no cluster, it is too small, or its workers were lost.
    """
    from hins_memory.training import TrainResult
    from hins_memory.training.fit.processes import process_count

    if not loop.ray or process_count() > 1:
        return _train(run, loop.gate.skills, progress)
    connect(loop.ray)
    folder = run.folder.absolute()
    with _told(folder / _STEPS, progress):
        in_workers(train_worker, TrainWork(folder, loop.gate.skills), loop.workers, folder)
    manifest = Description.given(json.loads((folder / _TRAINED).read_text(encoding="utf-8")))
    return TrainResult(run.model, manifest)


def train_worker(work: TrainWork) -> None:
    """Train a run with the other workers of a group; what an earlier group has left of it is continued."""
    from hins_memory.training import read_run
    from hins_memory.training.fit.checkpoints import locked
    from hins_memory.training.fit.processes import is_main

    if not work.folder.is_dir():
        raise TrainingError(
            f"A node of the cluster does not have the training's folder {work.folder}.",
            "Keep the project (HINS_HOME) on a file system that all nodes share.",
        )
    run = read_run(work.folder)
    if not is_main():
        _train(run, work.skills, None)
        return
    # A worker whose driver was killed ends some seconds after it.
    with locked(run.checkpoints, wait=True):
        shutil.rmtree(run.model, ignore_errors=True)
    trained = _train(run, work.skills, _Steps(work.folder / _STEPS))
    (work.folder / _TRAINED).write_text(json.dumps(trained.manifest.to_dict()), encoding="utf-8")


def _train(run: TrainingRun, skills: Sequence[str] | None, progress: Progress | None) -> TrainResult:
    from hins_memory.training import train_encoder

    return train_encoder(
        list(run.content.examples),
        run.model,
        base=shared_encoder(run.content.base),
        settings=run.content.settings,
        auxiliary=run.content.auxiliary.with_packaged_sets(skills),
        progress=progress,
        checkpoints=run.checkpoints,
    )


class _Steps:
    """Writes into a file how many steps are done."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._next = 0.0

    def __call__(self, stage: str, done: int, total: int) -> None:
        if done == total or time.monotonic() >= self._next:
            self._path.write_text(json.dumps([done, total]), encoding="utf-8")
            self._next = time.monotonic() + _SECONDS


@contextlib.contextmanager
def _told(path: Path, progress: Progress | None) -> Iterator[None]:
    """Tell how many steps are done, from what the workers write, until the block ends."""
    if progress is None:
        yield
        return
    ended, told = threading.Event(), progress

    def follow() -> None:
        last: list[int] = []
        while True:
            done = ended.wait(_SECONDS)
            # Half of it may be written.
            with contextlib.suppress(OSError, ValueError):
                steps = json.loads(path.read_text(encoding="utf-8"))
                if steps != last:
                    told("train", *steps)
                    last = steps
            if done:
                return

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
