"""A training under attack: what was changed between a kill and `resume`, odd examples, disks, two at one folder."""

from __future__ import annotations

import contextlib
import copy
import resource
import shutil
from pathlib import Path

import pytest
import torch
from train_world import checkpoint_every, examples, quick

from hins_memory.common.files import file_lock
from hins_memory.encoders.encoder import Encoder
from hins_memory.errors import TrainingError
from hins_memory.training import RunContent, TrainResult, open_run, train_encoder
from hins_memory.training.base import base_digest
from hins_memory.training.fit.checkpoints import check_identity, latest_checkpoint, mark_complete
from hins_memory.types import Negative, Positive, Scope, Tier, TieredExample

pytestmark = pytest.mark.slow


class Cut(Exception):
    """In the place of a kill: the training ends here."""


def cut_at(step: int):
    def progress(stage: str, done: int, total: int) -> None:
        if done == step:
            raise Cut

    return progress


def train(folder: Path, base: Path | Encoder, found=None, progress=None, **changes) -> TrainResult:
    return train_encoder(
        found if found is not None else examples(),
        folder / "model",
        base=base,
        settings=quick(**changes),
        checkpoints=folder / "checkpoints",
        progress=progress,
    )


@pytest.fixture(autouse=True)
def checkpoints_by_steps(monkeypatch):
    checkpoint_every(4, monkeypatch.setattr)


@pytest.fixture
def base(tiny_folder, tmp_path) -> Path:
    """A copy of the tiny encoder that a test may change."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "base"))


def cut_run(parent: Path, base: Path):
    """A run that was cut after its first checkpoint."""
    content = RunContent(examples(), quick(), str(base))
    with contextlib.suppress(Cut), open_run(parent, lambda: content) as run:
        (run.checkpoints / "checkpoint-1").mkdir(parents=True)
        mark_complete(run.checkpoints / "checkpoint-1")
        raise Cut
    return run


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_base_that_was_replaced_meanwhile_is_refused_and_the_right_one_continues(tmp_path, base, name):
    run = cut_run(tmp_path / "runs", base)
    content = (base / name).read_bytes()
    (base / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]) if name.endswith("tensors") else content + b"\n")
    with pytest.raises(TrainingError, match="its files have changed"), open_run(tmp_path / "runs", None):
        pytest.fail("it went on")
    (base / name).write_bytes(content)
    with open_run(tmp_path / "runs", None) as again:
        assert again.id == run.id


def test_checkpoints_of_another_base_are_refused(tmp_path, base):
    encoder = Encoder.load(base)
    with pytest.raises(Cut):
        train(tmp_path, encoder, progress=cut_at(6))
    # of the same name, which says who it is
    other = Encoder(copy.deepcopy(encoder.model), encoder.version)
    with torch.no_grad():
        next(other.model.parameters())[0, 0] += 1
    with pytest.raises(TrainingError, match="differs in base"):
        train(tmp_path, other)
    train(tmp_path, encoder)


def test_a_base_that_is_replaced_while_it_trains_is_no_part_of_the_result(tmp_path, base):
    weights, copied = base / "model.safetensors", tmp_path / "copy" / "model.safetensors"

    def moved(stage: str, done: int, total: int) -> None:
        if done == total:
            (tmp_path / "another").write_bytes(b"another")
            (tmp_path / "another").replace(weights)

    def overwritten(stage: str, done: int, total: int) -> None:
        if done == total:
            with copied.open("r+b") as stream:
                stream.seek(-4096, 2)
                stream.write(b"\x3f" * 4096)

    options = {"averaging_weight": 0.5, "min_steps": 2, "epochs": 0.1}
    whole = train(tmp_path / "whole", base, **options)
    with pytest.raises(TrainingError, match="its files have changed"):
        train(tmp_path / "overwritten", shutil.copytree(base, copied.parent), progress=overwritten, **options)
    assert not (tmp_path / "overwritten" / "model").exists()
    other = train(tmp_path / "moved", base, progress=moved, **options)
    ours, theirs = ((one.folder / "model.safetensors").read_bytes() for one in (whole, other))
    assert ours == theirs


def test_what_the_digest_of_a_base_tells(tmp_path, base):
    known = base_digest(base)
    (base / "hins_manifest.json").write_text("{}")
    assert base_digest(base) == known
    (base / "extra.py").write_text("")
    assert base_digest(base) != known
    assert base_digest("some/model-of-the-hub") == ""
    assert base_digest("stock") == base_digest("all-MiniLM-L6-v2") != ""


@pytest.mark.parametrize("name", ["examples.parquet", "held_out.json", "run.json"])
@pytest.mark.parametrize("how", ["changed", "cut", "gone"])
def test_a_run_whose_files_were_changed_is_refused(tmp_path, base, name, how):
    run = cut_run(tmp_path / "runs", base)
    path = run.folder / name
    content = path.read_bytes()
    if how == "gone":
        path.unlink()
    elif name == "run.json" and how == "changed":
        path.write_bytes(content.replace(b'"temperature": 0.05', b'"temperature": 0.06'))
        assert path.read_bytes() != content
    else:
        path.write_bytes(content[: len(content) // 2] if how == "cut" else content + b" ")
    with pytest.raises(TrainingError, match="damaged, or was changed"), open_run(tmp_path / "runs", None):
        pytest.fail("it went on")
    assert run.folder.exists()


def test_a_damaged_checkpoint_is_passed_over(tmp_path, base):
    whole = train(tmp_path / "whole", base).manifest.metrics.loss
    with pytest.raises(Cut):
        train(tmp_path, base, progress=cut_at(10))
    newest = latest_checkpoint(tmp_path / "checkpoints")
    assert newest is not None
    weights = newest / "trained.safetensors"
    content = bytearray(weights.read_bytes())
    content[-5] ^= 0xFF
    weights.write_bytes(content)
    steps: list[int] = []
    again = train(tmp_path, base, progress=lambda stage, done, total: steps.append(done))
    assert newest.name == "checkpoint-8"
    assert steps[0] == 5
    assert again.manifest.metrics.loss == whole


@pytest.mark.parametrize("content", ["{", "[]", "3", ""])
def test_a_damaged_record_of_the_training_is_a_clear_error(tmp_path, content):
    check_identity(tmp_path, {"data": "x"})
    (tmp_path / "training.json").write_text(content)
    with pytest.raises(TrainingError):
        check_identity(tmp_path, {"data": "x"})


def test_a_checkpoint_that_cannot_be_marked_does_not_count(tmp_path):
    (tmp_path / "checkpoint-1" / ".complete.json.tmp").mkdir(parents=True)
    with pytest.raises(TrainingError, match="--resume"):
        mark_complete(tmp_path / "checkpoint-1")
    assert latest_checkpoint(tmp_path) is None


def test_a_folder_for_checkpoints_that_is_none_is_a_clear_error(tmp_path, base):
    (tmp_path / "checkpoints").write_text("in the way")
    with pytest.raises(TrainingError, match="cannot be read or written"):
        train(tmp_path, base)


def test_a_disk_that_fills_up_while_the_model_is_saved_leaves_no_half_of_one(tmp_path, base):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def full(stage: str, done: int, total: int) -> None:
        if done == total:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))

    try:
        with pytest.raises(TrainingError, match="could not be saved"):
            train_encoder(examples(), tmp_path / "model", base=base, settings=quick(), progress=full)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not (tmp_path / "model").exists()


def test_two_trainings_do_not_share_a_folder_for_checkpoints(tmp_path, base):
    with file_lock(tmp_path / "checkpoints" / "training.lock"), pytest.raises(TrainingError, match="Another training"):
        train(tmp_path, base)
    train(tmp_path, base, min_steps=1, epochs=0.1)


@pytest.mark.parametrize("mode", ["full", "lora", "query"])
def test_weights_that_are_no_numbers_end_in_an_error_and_no_model(tmp_path, base, mode):
    # The last update is in no loss: every loss before it is finite.
    steps = {"min_steps": 2, "epochs": 0.1}
    with pytest.raises(TrainingError, match=r"not finite numbers|The loss became"):
        train(tmp_path, base, mode=mode, learning_rate=1e38, **steps)
    assert not (tmp_path / "model").exists()


def example(query: str, positive: str, *negatives: str) -> TieredExample:
    dealt = tuple(Negative(f"n{place}", text, Tier.HARD) for place, text in enumerate(negatives))
    return TieredExample(Scope(user="u"), "c", Positive(query, "m", positive, "answer", 0.9), dealt)


ODD = {
    "equal examples": [example("Who plays?", "Ann plays.", "Bo sleeps.")] * 16,
    "equal queries": [example("Who plays?", f"Person {n} plays.", "Bo sleeps.") for n in range(20)],
    "equal positives": [example(f"Who plays on day {n}?", "Ann plays.", "Bo sleeps.") for n in range(20)],
    "equal negatives": [example(f"Day {n}?", f"Rain on day {n}.", "Snow.", "Snow.", "Snow.") for n in range(20)],
    "the positive among the negatives": [example(f"Day {n}?", f"Rain {n}.", f"Rain {n}.", "Snow.") for n in range(20)],
    "all texts equal": [example("a", "a", "a")] * 16,
    "no negatives": [example(f"Day {n}?", f"Rain {n}.") for n in range(16)],
    "empty texts": [example("", "", "", "")] * 8 + [example(" ", "\n", "\t")] * 8 + [example("Day?", "", "x")] * 4,
    "texts of 100 kB": [
        *(example("Day? " * 20_000, f"Rain {n} " * 12_000, "x" * 100_000) for n in range(3)),
        *(example(f"Day {n}?", f"Rain {n}.", "Snow.") for n in range(13)),
    ],
    "emoji and other scripts": [example("🎻👩‍🚀" * 9, "谁在弹大提琴？", "שלום", "\u202eabc\u0000") for n in range(16)],
    "halves of pairs": [example("\ud83d", f"\udfbb {n}", "x\ud800y") for n in range(16)],
}


@pytest.mark.parametrize(
    ("name", "mode"), [*((name, "full") for name in ODD), ("all texts equal", "query"), ("empty texts", "query")]
)
def test_odd_examples_train_to_a_usable_encoder(tmp_path, base, name, mode):
    result = train(tmp_path, base, ODD[name], mode=mode, learning_rate=1e-4, min_steps=2, epochs=0.1)
    losses = result.manifest.metrics.loss
    assert losses
    assert all(0 <= loss < 1e4 for loss in losses)
    vectors = Encoder.load(result.folder).encode(["Who plays?", "", "🎻"], role="query")
    assert abs((vectors * vectors).sum(axis=1) - 1).max() < 1e-4
