"""The gradient steps, with sentence-transformers' trainer; an interrupted training is continued."""

from __future__ import annotations

import contextlib
import math
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hins_memory.encoders.encoder import bf16_supported
from hins_memory.training.fit.checkpoints import check_identity, latest_checkpoint, locked
from hins_memory.training.fit.cpu_allocator import fast_cpu_training
from hins_memory.training.fit.processes import from_main, is_main, process_count, wait_for_all
from hins_memory.training.settings import TrainSettings
from hins_memory.types import Progress

if TYPE_CHECKING:
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainingArguments
    from torch import nn

    from hins_memory.encoders.encoder import Encoder
    from hins_memory.evaluation import EvalSet

__all__ = ["FitJob", "fit"]


@dataclass(frozen=True, slots=True)
class FitJob:
    """What is trained on, how, and where checkpoints go.

    Attributes:
        settings: how.
        dataset: text columns, ``query`` first, and a column ``label`` where the loss needs one.
        loss: returns the loss of a model.
        encoder_of: returns the encoder that early stopping evaluates for a model in training.
        early_stopping_sets: labelled queries that early stopping measures; may be empty without early stopping.
        checkpoints: the folder of the run's checkpoints, shared by all processes; None keeps none.
        identity: what identifies the training, as JSON-able values; checkpoints of another one are refused.
        progress: called as (``train``, steps done, steps in all).
    """

    settings: TrainSettings
    dataset: Dataset
    loss: Callable[[SentenceTransformer], nn.Module]
    encoder_of: Callable[[SentenceTransformer], Encoder]
    early_stopping_sets: Sequence[EvalSet]
    checkpoints: Path | None
    identity: Mapping[str, Any]
    progress: Progress | None


def fit(model: SentenceTransformer, job: FitJob) -> list[dict[str, Any]]:
    """Train the model in place; return the trainer's log: a dictionary for each step and each evaluation."""
    from transformers.trainer_callback import EarlyStoppingCallback, PrinterCallback

    from hins_memory.training.fit.callbacks import CheckpointCallback, MonitorCallback
    from hins_memory.training.fit.tiered_trainer import TieredTrainer

    settings = job.settings
    # When the card has a widget, the trainer does not fill one with texts of the log; `prepare_card` clears it.
    model.model_card_data.widget = [{"text": ""}]
    with _checkpoint_folder(job) as folder:
        callbacks: list[Any] = [MonitorCallback(job.progress)]
        if job.checkpoints is not None:
            callbacks.append(CheckpointCallback(folder))
        evaluator = None
        if settings.patience:
            from hins_memory.training.fit.heldout_evaluator import HeldOutEvaluator

            evaluator = HeldOutEvaluator(job.early_stopping_sets, job.encoder_of)
            callbacks.append(EarlyStoppingCallback(settings.patience))
        trainer = TieredTrainer(
            model=model,
            args=_arguments(model, job, folder),
            train_dataset=job.dataset,
            loss=job.loss(model),
            evaluator=evaluator,
            callbacks=callbacks,
        )
        # The default callback prints every logged dictionary to stdout, which `--json` needs for itself.
        trainer.remove_callback(PrinterCallback)
        checkpoint = from_main(lambda: latest_checkpoint(folder))
        with fast_cpu_training(model):
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        history: list[dict[str, Any]] = trainer.state.log_history
    return history


@contextlib.contextmanager
def _checkpoint_folder(job: FitJob) -> Iterator[Path]:
    """Yield the folder of the checkpoints; without one, a temporary folder that all processes share."""
    if job.checkpoints is not None:
        folder = job.checkpoints
        with locked(folder) if is_main() else contextlib.nullcontext():
            if is_main():
                check_identity(folder, job.identity)
            wait_for_all()
            yield folder
        return
    folder = Path(from_main(lambda: tempfile.mkdtemp(prefix="hins-train-")))
    try:
        yield folder
        wait_for_all()
    finally:
        if is_main():
            shutil.rmtree(folder, ignore_errors=True)


def _arguments(model: SentenceTransformer, job: FitJob, folder: Path) -> SentenceTransformerTrainingArguments:
    import torch
    from sentence_transformers import SentenceTransformerTrainingArguments

    settings, examples = job.settings, len(job.dataset)
    columns = [name for name in job.dataset.column_names if name != "label"]
    steps = settings.steps(examples)
    early_stopping: dict[str, Any] = {"save_strategy": "no"}
    if settings.patience:
        from hins_memory.training.fit.heldout_evaluator import METRIC

        early_stopping = {
            "eval_strategy": "steps",
            "eval_steps": settings.steps_between_evaluations(steps),
            "save_strategy": "best",
            "metric_for_best_model": f"eval_{METRIC}",
            "greater_is_better": True,
            "load_best_model_at_end": True,
        }
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=settings.batch(examples, process_count()) // process_count(),
        learning_rate=settings.rate,
        warmup_steps=math.ceil(settings.warmup_steps(steps)),
        weight_decay=0.01,
        bf16=bf16_supported(model.device.type),
        use_cpu=not torch.cuda.is_available(),
        seed=settings.seed,
        data_seed=settings.seed,
        logging_steps=1,
        # The trainer's NaN filter hides losses that are not finite; the callback that stops the training must see them.
        logging_nan_inf_filter=False,
        save_total_limit=2,
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=False,
        # Every batch is full anyway; the trainer would set this and warn.
        dataloader_drop_last=process_count() > 1,
        prompts=_prompts(model, columns),
        router_mapping=_routes(model, columns),
        **early_stopping,
    )
    # A process uses one GPU; for several GPUs, torchrun starts several processes.
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1
    return arguments


def _role(column: str) -> str:
    return "query" if column == "query" else "document"


def _prompts(model: SentenceTransformer, columns: Sequence[str]) -> dict[str, str] | None:
    """Return the prompt of each column where the model has prompts, as its `encode_query` and `encode_document`."""
    known = {"query": ("query",), "document": ("document", "passage", "corpus")}
    found = {}
    for column in columns:
        names = [name for name in known[_role(column)] if name in model.prompts]
        name = names[0] if names else model.default_prompt_name
        if name is not None and model.prompts.get(name):
            found[column] = model.prompts[name]
    return found or None


def _routes(model: SentenceTransformer, columns: Sequence[str]) -> dict[str, str] | None:
    """Return each column's route through a model that treats queries and documents differently."""
    if not any(type(module).__name__ == "Router" for module in model.children()):
        return None
    return {column: _role(column) for column in columns}
