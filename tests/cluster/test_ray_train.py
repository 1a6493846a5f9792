"""Training by workers on a real Ray cluster of two nodes: the encoder of one process, although a worker is killed."""

from __future__ import annotations

import os
import signal
import sys

import pytest
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
    """A worker that writes checkpoints often, and of which the second is killed once, after its third checkpoint."""
    from hins_memory.training import AuxiliaryData
    from hins_memory.training.fit.callbacks import CheckpointCallback

    AuxiliaryData.with_packaged_sets = unlimited
    rank, killed = os.environ["RANK"], work.folder.parent / "killed"

    def due(self, state):
        with (work.folder.parent / f"steps{rank}").open("a") as stream:
            stream.write(f"{state.global_step}\n")
        if state.global_step == 7 and rank == "1" and not killed.exists():
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return state.global_step % 2 == 0

    CheckpointCallback._due = due
    train_worker(work)


def unlimited(auxiliary, skills):
    """Limit no forgetting: how much is kept would hang on the last bits of what was learned."""
    return auxiliary


def trained(folder, base, loop, told):
    settings = TrainSettings("lora", 1.0, 12, 8, 1e-3, lora_rank=4, max_tokens=32, replay=0.0)
    with open_run(folder, lambda: RunContent(examples(), settings, str(base))) as run:
        result = train_run(run, loop, lambda *done: told.append(done))
        return load_file(result.folder / "model.safetensors"), result.manifest


def test_workers_train_what_one_process_does_although_one_is_killed(cluster, tmp_path, shallow_folder, monkeypatch):  # noqa: F811
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr(hins_memory.loop.train, "train_worker", worker)
    monkeypatch.setattr(AuxiliaryData, "with_packaged_sets", unlimited)
    told = []
    loop = LoopSettings(ray=cluster.address, workers=2)
    theirs, manifest = trained(tmp_path / "cluster", shallow_folder, loop, told)
    ours, _ = trained(tmp_path / "alone", shallow_folder, LoopSettings(), [])
    base = load_file(shallow_folder / "model.safetensors")
    learned = max(float((ours[name] - base[name]).abs().max()) for name in base)
    assert learned > 1e-3
    assert max(float((theirs[name] - weight).abs().max()) for name, weight in ours.items()) < 0.1 * learned
    assert manifest.run.hardware["processes"] == 2
    assert told[-1] == ("train", 12, 12)
    steps = [int(step) for step in (tmp_path / "cluster" / "steps0").read_text().split()]
    assert steps[-6:] == list(range(7, 13))
    assert steps.count(1) == 1, "the workers that began again continued from a checkpoint"
