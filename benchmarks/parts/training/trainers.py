"""What benchmarks/training.py trains on, and the two trainers it compares, each in a process that can be paused.

A child process announces itself with a line on its standard output, then trains a slice of steps whenever it reads a
line, and reports how long the slice took. Trainers take turns in one run, so that other load of the machine affects
all of them; memory allocators and thread pools are not shared.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from hins_memory.encoders.encoder import Encoder
from hins_memory.errors import HinsError
from hins_memory.evaluation import EvalQuery, EvalSet
from hins_memory.mining import MineSettings, mine
from hins_memory.types import ScopeLog, TieredExample
from parts.datasets.locomo import Conversation, eval_set
from parts.mining.evidence_logs import cases, locomo_scopes, sample_scope, scope_log

__all__ = ["PEERS", "Job", "Runner", "Split", "child", "hardware", "locomo_splits", "raced", "sample_split"]

#: Trainer -> what it is. The second is sentence-transformers' trainer with its defaults, as a user would run it.
PEERS = {
    "hins": "train_encoder, mode full",
    "plain": "SentenceTransformerTrainer, MultipleNegativesRankingLoss",
    "plain_bf16": "the same with bf16=True",
}
# glibc's settings in the environment: the trainers run without them, as they do for most users.
_ALLOCATOR = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")


@dataclass(frozen=True, slots=True)
class Split:
    """Examples to train on, and what to score on, of other conversations."""

    examples: list[TieredExample]
    held_out: list[EvalSet]


@dataclass(frozen=True, slots=True)
class Job:
    """One training: the trainer, a pickle of our own examples, the number of steps, and the folder to write."""

    peer: str
    examples: str
    folder: str
    steps: int
    slice_steps: int
    batch_size: int
    negatives: int
    learning_rate: float
    seed: int
    base: str = "stock"


def locomo_splits(data: Sequence[Conversation], folds: int, encoder: Encoder) -> list[Split]:
    """Split by conversation; every conversation is held out in exactly one. Examples come of simulated searches."""
    logs = [scope_log(log, asked, cases(log, asked, encoder)) for log, asked in locomo_scopes(data)]
    return [
        Split(
            mine([log for place, log in enumerate(logs) if place % folds != fold], encoder).examples,
            [eval_set(one, "turns") for place, one in enumerate(data) if place % folds == fold],
        )
        for fold in range(folds)
    ]


def sample_split(encoder: Encoder) -> Split:
    """Return the packaged sample conversations: the last one is scored, the others are trained on."""
    whole, asked = sample_scope()
    last = whole.memories[-1].conversation
    held = {memory.id for memory in whole.memories if memory.conversation == last}
    trained = tuple(memory for memory in whole.memories if memory.id not in held)
    kept = [one for one in asked if not one.evidence & held]
    log: ScopeLog = replace(whole, memories=trained)
    examples = mine(
        [scope_log(log, kept, cases(log, kept, encoder))], encoder, MineSettings(max_owner_share=1.0)
    ).examples
    queries = tuple(EvalQuery(one.text, one.evidence, "1") for one in asked if one.evidence <= held)
    texts = {memory.id: memory.text for memory in whole.memories if memory.id in held}
    return Split(examples, [EvalSet(last, texts, queries)])


def raced() -> list[str]:
    """Return the trainers that this processor can race: emulating bfloat16 would only show that it is slow."""
    from hins_memory.encoders.encoder import bf16_supported

    return [peer for peer in PEERS if peer != "plain_bf16" or bf16_supported("cpu")]


def hardware() -> dict[str, Any]:
    """Return what a speed depends on: the processor, its vector instructions for bfloat16, threads, the allocator."""
    import platform

    import torch

    from hins_memory.encoders.encoder import bf16_supported

    info: dict[str, str] = {}
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            info[key.strip()] = value.strip()
    flags = info.get("flags", "").split()
    return {
        "processor": info.get("model name", platform.processor()),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "avx512_bf16": "avx512_bf16" in flags,
        "amx_bf16": "amx_bf16" in flags,
        "bf16_supported": bf16_supported("cpu"),
        "libc": " ".join(platform.libc_ver()),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


class Runner:
    """The parent's side of one training in a child process, which `close` ends.

    Attributes:
        seconds: wall time of each slice; the first steps, with all that happens once, are not among them.
        cpu: processor time of each slice.
    """

    def __init__(self, script: str, job: Job) -> None:
        self.job = job
        self.seconds: list[float] = []
        self.cpu: list[float] = []
        self.finished = False
        environment = {k: v for k, v in os.environ.items() if not k.startswith(_ALLOCATOR)} | {"TQDM_DISABLE": "1"}
        self._process: subprocess.Popen[str] = subprocess.Popen(
            [sys.executable, script, "--child", json.dumps(asdict(job))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def close(self) -> None:
        """End the child, whether it has finished or not."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    def advance(self) -> None:
        """Let the child train its next slice, and wait for its end."""
        sent, received = self._process.stdin, self._process.stdout
        assert sent is not None
        assert received is not None
        with suppress(BrokenPipeError):
            sent.write("go\n")
            sent.flush()
        line = received.readline()
        if not line:
            raise HinsError(f"The training by {self.job.peer} failed with status {self._process.wait()}.")
        told = json.loads(line)
        self.finished = told["finished"]
        if told["steps"]:
            self.seconds.append(told["seconds"] / told["steps"])
            self.cpu.append(told["cpu"] / told["steps"])


class _SliceTimer:
    """The child's side: counts steps, reports at the end of a slice, and waits for the next one."""

    def __init__(self, output: IO[str], slice_steps: int) -> None:
        self._output = output
        self._slice = slice_steps
        self._steps = 0
        self._warm = False
        self._await()

    def _await(self) -> None:
        sys.stdin.readline()
        self._started, self._cpu = time.perf_counter(), time.process_time()

    def step(self) -> None:
        """Count a step that has just ended."""
        self._steps += 1
        if not self._warm:
            self._tell(0, finished=False)
            self._warm = True
            self._await()
        elif self._steps == self._slice:
            self._tell(self._slice, finished=False)
            self._await()

    def finish(self) -> None:
        """Report the end of the training."""
        self._tell(0, finished=True)

    def _tell(self, steps: int, *, finished: bool) -> None:
        seconds, cpu = time.perf_counter() - self._started, time.process_time() - self._cpu
        self._steps = 0
        told = {"steps": steps, "seconds": seconds, "cpu": cpu, "finished": finished}
        print(json.dumps(told), file=self._output, flush=True)


def child(job: Job) -> None:
    """Train in this process, a slice a time, as the parent says."""
    # What the libraries print must not come between the lines for the parent.
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    # Written by the parent, in a folder of its own.
    mined: list[TieredExample] = pickle.loads(Path(job.examples).read_bytes())
    examples = [replace(example, negatives=example.negatives[: job.negatives]) for example in mined]
    timer = _SliceTimer(output, job.slice_steps)
    if job.peer == "hins":
        _train_hins(job, examples, timer)
    else:
        _train_plain(job, examples, timer)
    timer.finish()


def _train_hins(job: Job, examples: list[TieredExample], timer: _SliceTimer) -> None:
    from hins_memory.training import TrainSettings, train_encoder

    settings = TrainSettings(
        mode="full",
        epochs=job.steps / np.ceil(len(examples) / job.batch_size),
        min_steps=job.steps,
        batch_size=job.batch_size,
        learning_rate=job.learning_rate,
        averaging_weight=1.0,
        replay=0.0,
        seed=job.seed,
    )

    def progress(stage: str, done: int, total: int) -> None:
        if stage == "train":
            timer.step()

    train_encoder(examples, Path(job.folder), base=job.base, settings=settings, progress=progress)


def _train_plain(job: Job, examples: list[TieredExample], timer: _SliceTimer) -> None:
    import torch
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
    from sentence_transformers import SentenceTransformerTrainingArguments as Arguments
    from sentence_transformers.losses import MultipleNegativesRankingLoss
    from transformers import TrainerCallback

    from hins_memory.encoders.encoder import resolve_model
    from hins_memory.training.fit.dataset import batch_stream, to_dataset

    def in_order(dataset: Any, batch_size: int, **_: Any) -> Any:
        return torch.utils.data.BatchSampler(range(len(dataset)), batch_size, drop_last=False)

    class Stepwise(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            timer.step()

    model = SentenceTransformer(resolve_model(job.base))
    # The batches that our trainer makes of the same seed.
    rows = [row for batch in batch_stream(len(examples), job.batch_size, job.steps, job.seed) for row in batch]
    arguments = Arguments(
        output_dir=f"{job.folder}-run",
        max_steps=job.steps,
        per_device_train_batch_size=job.batch_size,
        learning_rate=job.learning_rate,
        # These three as our trainer has them, so that both learn the same.
        warmup_steps=int(np.ceil(0.1 * job.steps)),
        weight_decay=0.01,
        seed=job.seed,
        batch_sampler=in_order,
        bf16=job.peer == "plain_bf16",
        # transformers asks for it before it lets a processor compute in bf16
        use_cpu=job.peer == "plain_bf16" and not torch.cuda.is_available(),
        save_strategy="no",
        report_to=[],
    )
    trainer = SentenceTransformerTrainer(
        model=model,
        args=arguments,
        train_dataset=to_dataset(examples).select(rows),
        loss=MultipleNegativesRankingLoss(model, scale=20.0),
        callbacks=[Stepwise()],
    )
    trainer.train()
    model.save(job.folder)
