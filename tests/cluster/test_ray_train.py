"""Training by workers on a real Ray cluster of two nodes: the encoder of one process, whoever is killed."""

from __future__ import annotations

import os
import signal
import sys
import time

import pytest
from child_process import Child, children
from ray_driver import dying_when
from safetensors.torch import load_file
from test_ray import cluster  # noqa: F401

import hins_memory.loop.train
from hins_memory.loop.pipeline import LoopSettings
from hins_memory.loop.train import train_run, train_worker
from hins_memory.training import AuxiliaryData, RunContent, TrainSettings, open_run
from hins_memory.types import Negative, Positive, Scope, Tier, TieredExample

cloudpickle = pytest.importorskip("ray.cloudpickle", reason="needs the extra ray")
pytestmark = pytest.mark.slow

# Ray lets its workers wait for every other process; beside other tests that is for minutes.
os.environ.setdefault("RAY_worker_niceness", "0")
THINGS = ("cello", "kayak", "violet", "lantern", "walnut", "harbour")


def examples():
    found = []
    for user in ("ann", "bo", "cid", "dee"):
        for row, thing in enumerate(THINGS):
            text = f"{user} keeps the {thing} near the {THINGS[row - 3]}"
            positive = Positive(f"Where does {user} keep the {thing}?", f"{user}{row}", text, "answer", 0.9)
            other = Negative(f"{user}{row}'", f"{user} keeps the {THINGS[row - 1]} near the door", Tier.HARD)
            found.append(TieredExample(Scope(user=user), "c", positive, (other,)))
    return found


def worker(work):
    """A worker that writes checkpoints often; one waits for its driver's end, and one is killed at the seventh step."""
    from hins_memory.training import AuxiliaryData
    from hins_memory.training.fit.callbacks import CheckpointCallback

    AuxiliaryData.with_packaged_sets = unlimited
    rank, parent = os.environ["RANK"], work.folder.parent

    def due(self, state):
        with (parent / f"steps{rank}").open("a") as stream:
            stream.write(f"{state.global_step}\n")
        while state.global_step == 3 and not (parent / "resumed").exists():
            time.sleep(0.05)
        if state.global_step == 7 and rank == "1" and not (parent / "killed").exists():
            (parent / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return state.global_step % 2 == 0

    CheckpointCallback._due = due
    train_worker(work)


def unlimited(auxiliary, skills):
    """Limit no forgetting: how much is kept would hang on the last bits of what was learned."""
    return auxiliary


def content(base):
    settings = TrainSettings("lora", 1.0, 12, 8, 1e-3, lora_rank=4, max_tokens=32, replay=0.0)
    return RunContent(examples(), settings, str(base))


def trained(folder, make, loop, told=None):
    with open_run(folder, make) as run:
        result = train_run(run, loop, None if told is None else lambda *done: told.append(done))
        return load_file(result.folder / "model.safetensors"), result.manifest


def train_until_a_checkpoint(channel, folder, base, loop):
    """Drive the cluster's workers, and be killed when they have written a checkpoint."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    hins_memory.loop.train.train_worker = worker
    with dying_when(lambda: any(folder.glob("run-*/checkpoints/checkpoint-*/complete.json"))):
        trained(folder, lambda: content(base), loop)


def test_workers_train_what_one_process_does_although_the_driver_and_a_worker_are_killed(
    cluster,  # noqa: F811
    tmp_path,
    shallow_folder,
    monkeypatch,
):
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr(hins_memory.loop.train, "train_worker", worker)
    monkeypatch.setattr(AuxiliaryData, "with_packaged_sets", unlimited)
    folder, told = tmp_path / "cluster", []
    loop = LoopSettings(ray=cluster.address, workers=2)
    with children(Child(train_until_a_checkpoint, folder, shallow_folder, loop)) as (driver,):
        driver.killed()
    (folder / "resumed").touch()
    theirs, manifest = trained(folder, None, loop, told)
    ours, _ = trained(tmp_path / "alone", lambda: content(shallow_folder), LoopSettings())
    base = load_file(shallow_folder / "model.safetensors")
    learned = max(float((ours[name] - base[name]).abs().max()) for name in base)
    assert learned > 1e-3
    assert max(float((theirs[name] - weight).abs().max()) for name, weight in ours.items()) < 0.1 * learned
    assert manifest.run.hardware["processes"] == 2
    assert told[-1] == ("train", 12, 12)
    steps = [int(step) for step in (folder / "steps0").read_text().split()]
    assert steps[-6:] == list(range(7, 13))
    assert steps.count(1) == 1, "those of the second driver, and those after a death, continued from a checkpoint"
