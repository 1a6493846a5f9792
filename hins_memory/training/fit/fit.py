"""One training run with sentence-transformers' trainer: from where it was cut, if it was, to its end."""

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
from hins_memory.training.fit.cpu_allocator import quick_training
from hins_memory.training.fit.processes import from_main, is_main, process_count, wait_for_all
from hins_memory.training.settings import TrainSettings

if TYPE_CHECKING:
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainingArguments

    from hins_memory.evaluation import EvalSet

__all__ = ["Fit", "fit"]

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Fit:
    """What is to be fitted.

    Attributes:
        settings: how.
        dataset: of `to_dataset`.
        held_out: what early stopping looks at; empty without.
        checkpoints: the folder of the run's checkpoints, shared by all processes; None keeps none.
        identity: what the checkpoints are of, as JSON-able values; a folder of another run is refused.
        progress: called as (``train``, steps done, steps in all).
    """

    settings: TrainSettings
    dataset: Dataset
    held_out: Sequence[EvalSet]
    checkpoints: Path | None
    identity: Mapping[str, Any]
    progress: Progress | None


def fit(model: SentenceTransformer, what: Fit) -> list[dict[str, Any]]:
    """Train the model in place; return the log: a dictionary for each step and each look at the held-out traffic."""
    from transformers.trainer_callback import EarlyStoppingCallback, PrinterCallback

    from hins_memory.training.fit.callbacks import CheckpointCallback, WatchCallback
    from hins_memory.training.fit.tiered_trainer import TieredTrainer
    from hins_memory.training.loss.loss import LossSettings, TieredInfoNCELoss

    settings = what.settings
    # Where the card has a widget already, the trainer picks no texts of the log for one; `prepare_card` clears it.
    model.model_card_data.widget = [{"text": ""}]
    with _run_folder(what) as folder:
        callbacks: list[Any] = [WatchCallback(what.progress)]
        if what.checkpoints is not None:
            callbacks.append(CheckpointCallback(folder, settings.checkpoint_seconds, settings.checkpoint_steps))
        evaluator = None
        if settings.patience:
            from hins_memory.training.fit.heldout_evaluator import HeldOutEvaluator

            evaluator = HeldOutEvaluator(what.held_out)
            callbacks.append(EarlyStoppingCallback(settings.patience))
        loss = LossSettings(
            temperature=settings.temperature,
            micro_batch_size=settings.micro_batch_size,
            gradient_cache=settings.gradient_cache,
        )
        trainer = TieredTrainer(
            model=model,
            args=_arguments(model, what, folder),
            train_dataset=what.dataset,
            loss=TieredInfoNCELoss(model, loss),
            evaluator=evaluator,
            callbacks=callbacks,
        )
        # The default callback prints every logged dictionary to stdout, which `--json` needs for itself.
        trainer.remove_callback(PrinterCallback)
        cut = from_main(lambda: latest_checkpoint(folder))
        with quick_training(model):
            trainer.train(resume_from_checkpoint=str(cut) if cut else None)
        history: list[dict[str, Any]] = trainer.state.log_history
    return history


@contextlib.contextmanager
def _run_folder(what: Fit) -> Iterator[Path]:
    """Give the folder of the checkpoints; without one, a temporary one that all processes share."""
    if what.checkpoints is not None:
        folder = what.checkpoints
        with locked(folder) if is_main() else contextlib.nullcontext():
            if is_main():
                check_identity(folder, what.identity)
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


def _arguments(model: SentenceTransformer, what: Fit, folder: Path) -> SentenceTransformerTrainingArguments:
    import torch
    from sentence_transformers import SentenceTransformerTrainingArguments

    settings, examples = what.settings, len(what.dataset)
    steps = settings.steps(examples)
    early: dict[str, Any] = {"save_strategy": "no"}
    if settings.patience:
        from hins_memory.training.fit.heldout_evaluator import METRIC

        early = {
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
        warmup_steps=math.ceil(settings.warmup * steps),
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
        prompts=_prompts(model, what.dataset.column_names),
        router_mapping=_routes(model, what.dataset.column_names),
        **early,
    )
    # One process uses one GPU; several are a matter of torchrun.
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
