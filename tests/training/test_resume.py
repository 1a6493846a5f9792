"""Killed at any moment and continued, a training ends with the weights of an undisturbed one."""

from __future__ import annotations

import json
import resource
import shutil
from pathlib import Path

import pytest
from child_process import run_python
from train_world import checkpoint_every, examples, quick

from hins_memory.errors import TrainingError
from hins_memory.training import train_encoder
from hins_memory.training.fit.checkpoints import check_space, latest_checkpoint, mark_complete

pytestmark = pytest.mark.slow

WORKER = Path(__file__).with_name("kill_worker.py")


def checkpoint(folder: Path, step: int, *, complete: bool = True) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (path / "trained.safetensors").write_bytes(b"weights")
    (path / "optimizer.pt").write_bytes(b"moments")
    if complete:
        mark_complete(path)
    return path


def test_kill_and_resume_give_the_same_weights(tmp_path, tiny_folder):
    done = run_python(WORKER.read_text(encoding="utf-8"), str(tiny_folder), str(tmp_path))
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout.splitlines()[-1])
    points = report["points"]
    assert {point["digest"] for point in points.values()} == {report["undisturbed"]}
    assert points["before the first checkpoint"]["continued"] == [1]
    assert points["while a checkpoint is written"]["partial"] == [6]
    assert points["while a checkpoint is written"]["continued"] == [4]
    for name in ("between checkpoints", "after the last step"):
        assert points[name]["continued"] == [max(points[name]["complete"]) + 1]
    assert report["tower"]["continued"][0] in (7, 10)
    assert report["tower"]["same"]
    assert report["queries"] == {"cut": True, "continued": [1], "same": True}


def test_only_complete_checkpoints_count_and_others_are_removed(tmp_path):
    assert latest_checkpoint(tmp_path) is None
    assert latest_checkpoint(tmp_path / "nowhere") is None
    first = checkpoint(tmp_path, 3)
    unmarked = checkpoint(tmp_path, 12, complete=False)
    cut = checkpoint(tmp_path, 9)
    (cut / "optimizer.pt").write_bytes(b"mom")
    lacking = checkpoint(tmp_path, 100)
    (lacking / "trained.safetensors").unlink()
    broken = checkpoint(tmp_path, 101)
    (broken / "complete.json").write_text("{")
    assert latest_checkpoint(tmp_path) == first
    assert not any(path.exists() for path in (unmarked, cut, lacking, broken))
    assert latest_checkpoint(tmp_path) == first
    assert latest_checkpoint(tmp_path) != checkpoint(tmp_path, 10)
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoint-10"


def test_a_disk_without_room_is_refused_before_the_work(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    check_space({tmp_path / "a" / "b": 1000})
    with pytest.raises(TrainingError, match=r"Training writes up to [\d,]+ MB .* which has [\d,]+ MB free"):
        check_space({tmp_path / "a": free})
    with pytest.raises(TrainingError, match="MB free"):
        # either fits, both do not
        check_space({tmp_path / "a": int(free * 0.6), tmp_path / "b": int(free * 0.6)})


def test_a_checkpoint_that_cannot_be_written_says_how_to_go_on(tmp_path, tiny_folder):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # as if the disk filled up: the weights of the tiny encoder are larger than this
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(TrainingError, match="--resume"):
            train(tmp_path, tiny_folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert latest_checkpoint(tmp_path / "checkpoints") is None


@pytest.fixture(autouse=True)
def checkpoints_by_steps(monkeypatch):
    checkpoint_every(4, monkeypatch.setattr)


def train(folder: Path, base: Path, **changes: object) -> dict:
    return train_encoder(
        examples(),
        folder / "model",
        base=base,
        settings=quick(**changes),
        checkpoints=folder / "checkpoints",
    ).manifest


def test_continuing_keeps_the_whole_curve_and_refuses_another_training(tmp_path, tiny_folder):
    whole = train(tmp_path, tiny_folder)
    shutil.rmtree(tmp_path / "model")
    assert latest_checkpoint(tmp_path / "checkpoints").name == "checkpoint-8"
    with pytest.raises(TrainingError, match="of another training; it differs in settings"):
        train(tmp_path, tiny_folder, temperature=0.1)
    again = train(tmp_path, tiny_folder)
    assert again.metrics.loss == whole.metrics.loss
    assert len(again.run.curves.seconds) == 12
    assert list(again.run.curves.seconds) == sorted(again.run.curves.seconds)
    assert again.run.curves.seconds[:8] == whole.run.curves.seconds[:8]
