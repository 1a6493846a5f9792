"""One of several processes that train together, started by a launcher; see test_processes.

Usage: processes_worker.py gradients|lora|tower[,...] BASE FOLDER. With `gradients`, every process writes the loss and
the gradients of its part of one batch to FOLDER/RANK-CACHED.pt; else they train together, in that mode.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from torch.nn.parallel import DistributedDataParallel
from train_world import batch_columns, checkpoint_every, examples, shared_settings

from hins_memory.training import RunContent, open_run, train_encoder
from hins_memory.training.fit.processes import from_main, is_main, process_count, wait_for_all
from hins_memory.training.loss.loss import TieredInfoNCELoss

base, root = Path(sys.argv[2]), Path(sys.argv[3])


def gradients(cache: bool) -> None:
    model = SentenceTransformer(str(base), device="cpu").eval()
    wrapped = DistributedDataParallel(model, find_unused_parameters=True, broadcast_buffers=False)
    loss = TieredInfoNCELoss(model, micro_batch_size=3, gradient_cache=cache)
    loss.model = wrapped
    columns = batch_columns(model, torch.distributed.get_rank(), process_count())
    value = loss(columns)
    value.backward()
    found = {name: one.grad for name, one in model.named_parameters() if one.grad is not None}
    torch.save((float(value.detach()), found), root / f"{torch.distributed.get_rank()}-{cache}.pt")


def train(mode: str) -> None:
    assert from_main(lambda: "of the first") == "of the first"
    checkpoint_every(5)
    called: list[bool] = []

    def content() -> RunContent:
        called.append(True)
        return RunContent(examples(), shared_settings(mode), str(base))

    with open_run(root / "training", content) as run:
        result = train_encoder(
            run.content.examples,
            root / "model",
            base=run.content.base,
            settings=run.content.settings,
            checkpoints=run.checkpoints,
        )
    assert bool(called) == is_main()
    assert len(result.manifest.metrics.loss) == 12


wait_for_all()
for what in sys.argv[1].split(","):
    if what == "gradients":
        gradients(cache=False)
        gradients(cache=True)
    else:
        train(what)
