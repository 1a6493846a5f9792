"""Two real processes do together what one does alone."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path

import pytest
import torch
from child_process import Child, children
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from train_world import batch_columns, examples, run_script, shared_settings

from hins_memory.errors import ConfigError
from hins_memory.training import TrainSettings, train_encoder
from hins_memory.training.fit.dataset import batch_stream
from hins_memory.training.loss.loss import TieredInfoNCELoss

WORKER = Path(__file__).parent / "processes_worker.py"
ACCELERATE = ("accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1")


@pytest.fixture(scope="module")
def torchrun(tmp_path_factory, tiny_folder) -> Path:
    """What two processes found of one batch, and the tower that they trained; they know of each other as torchrun says.

    They are forks that have torch already; test_train_command runs torchrun itself.
    """
    folder = tmp_path_factory.mktemp("torchrun")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    workers = []
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", str(port)), ("WORLD_SIZE", "2")):
            patch.setenv(name, value)
        patch.setenv("OMP_NUM_THREADS", "1")
        for rank in ("0", "1"):
            patch.setenv("RANK", rank)
            patch.setenv("LOCAL_RANK", rank)
            workers.append(Child(run_script, WORKER, "gradients,tower", tiny_folder, folder))
    with children(*workers):
        for worker in workers:
            worker.wait()
    return folder


@pytest.fixture(scope="module")
def accelerate(tmp_path_factory, tiny_folder, forked_python) -> Path:
    """What two processes under accelerate trained."""
    folder = tmp_path_factory.mktemp("accelerate")
    launch((forked_python, "-m", *ACCELERATE), "lora", tiny_folder, folder)
    return folder


def launch(launcher: tuple[str, ...], what: str, base: Path, folder: Path) -> None:
    done = subprocess.run(
        [*launcher, str(WORKER), what, str(base), str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize("cache", [False, True])
def test_loss_and_gradients_equal_those_of_one_process(torchrun, tiny_folder, cache):
    model = SentenceTransformer(str(tiny_folder), device="cpu").eval()
    loss = TieredInfoNCELoss(model, micro_batch_size=3)
    columns = batch_columns(model)
    value = loss(columns)
    value.backward()
    parts = [torch.load(torchrun / f"{rank}-{cache}.pt") for rank in range(2)]
    assert sum(part[0] for part in parts) / 2 == pytest.approx(float(value.detach()), abs=1e-5)
    expected = {name: one.grad for name, one in model.named_parameters() if one.grad is not None}
    assert max(float(gradient.abs().max()) for gradient in expected.values()) > 1e-3
    for _, found in parts:
        for name, gradient in expected.items():
            assert torch.allclose(found[name], gradient, atol=1e-5), name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "mode", "trained"),
    [
        ("accelerate", "lora", "model.safetensors"),
        ("torchrun", "tower", "query_0_Transformer/model.safetensors"),
    ],
)
def test_a_training_of_two_processes_equals_that_of_one(request, tmp_path, tiny_folder, launcher, mode, trained):
    launched = request.getfixturevalue(launcher)
    alone = train_encoder(examples(), tmp_path / "model", base=tiny_folder, settings=shared_settings(mode))
    ours, theirs = (load_file(folder / "model" / trained) for folder in (tmp_path, launched))
    base = load_file(tiny_folder / "model.safetensors")
    learned = max(float((ours[name] - base[name]).abs().max()) for name in base)
    apart = max(float((theirs[name] - weight).abs().max()) for name, weight in ours.items())
    # bfloat16, where the processor has it, rounds the same products in another order
    assert learned > 1e-3
    assert apart < 0.1 * learned
    assert json.loads((launched / "model" / "modules.json").read_text())
    assert not any(path.name.startswith("run-") for path in (launched / "training").iterdir())
    assert alone.manifest.run.hardware["processes"] == 1


def test_processes_share_the_batches_of_one():
    alone = list(batch_stream(10, 4, 6, seed=1))
    shared = list(batch_stream(10, 2, 12, seed=1))
    assert [[*shared[2 * step], *shared[2 * step + 1]] for step in range(6)] == alone
    assert sorted(alone[0] + alone[1] + alone[2][:2]) == list(range(10))
    assert list(batch_stream(10, 4, 6, seed=2)) != alone


def test_a_batch_is_shared_evenly_or_refused():
    settings = TrainSettings(batch_size=32)
    assert settings.batch(100) == 32
    assert settings.batch(20) == 20
    assert settings.batch(100, processes=3) == 30
    with pytest.raises(ConfigError, match="cannot be shared by 64 processes"):
        settings.batch(100, processes=64)
