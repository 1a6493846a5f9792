"""From tiered examples to a trained sentence-transformers folder, with sentence-transformers' own trainer."""

from __future__ import annotations

import importlib.metadata
import math
import platform
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hins_memory.encoder import Encoder, bf16_supported
from hins_memory.errors import NotEnoughDataError, TrainingError
from hins_memory.train.settings import TrainSettings
from hins_memory.types import TieredExample

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = ["TrainResult", "train_encoder"]

#: fewer examples than this teach nothing but noise
MIN_EXAMPLES = 16
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class TrainResult:
    """A trained encoder: its folder, loadable by sentence-transformers, and what the manifest is to say of it."""

    folder: Path
    manifest: dict[str, Any]


def train_encoder(
    examples: Sequence[TieredExample],
    folder: Path,
    *,
    base: str | Path = "stock",
    settings: TrainSettings | None = None,
    progress: Progress | None = None,
) -> TrainResult:
    """Fine-tune an encoder on tiered examples (HiNS, arXiv 2601.14857) and save it.

    Args:
        examples: what to learn from; their order does not matter beyond the seed.
        folder: where the trained model is written; must not exist or be empty.
        base: the encoder to start from, as for `Encoder.load`.
        settings: how to train; None means the defaults.
        progress: called as (``train``, steps done, steps in all).

    Raises:
        NotEnoughDataError: fewer than 16 examples.
        TrainingError: the loss is no longer a number, the folder is not empty, or it cannot be written.
        EncoderError: the base cannot be loaded.
    """
    settings = settings or TrainSettings()
    if len(examples) < MIN_EXAMPLES:
        raise NotEnoughDataError(
            f"There are {len(examples)} training examples; at least {MIN_EXAMPLES} are needed.",
            "Let the agent run longer, and record answers (answered) or feedback.",
        )
    if folder.exists() and any(folder.iterdir()):
        raise TrainingError(f"{folder} is not empty.", "Give a new folder.")
    encoder = Encoder.load(base)
    started = time.perf_counter()
    model = encoder.model
    limit = model.max_seq_length
    finish = _prepare(model, settings)
    losses = _fit(model, examples, settings, progress)
    finish()
    model.max_seq_length = limit
    seconds = time.perf_counter() - started
    try:
        model.save(str(folder), safe_serialization=True)
    except OSError as error:
        raise TrainingError(
            f"The trained encoder could not be saved to {folder}: {error}", "Free disk space, then train again."
        ) from error
    return TrainResult(folder, _manifest(encoder.version, examples, settings, losses, seconds))


def _prepare(model: SentenceTransformer, settings: TrainSettings) -> Callable[[], Any]:
    """Make the model trainable in the mode; return what is to be called after training, before the model is saved."""
    import torch

    if settings.max_tokens:
        model.max_seq_length = min(settings.max_tokens, model.max_seq_length or settings.max_tokens)
    if settings.mode == "full":
        return lambda: None
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(settings.seed)
    config = LoraConfig(r=settings.lora_rank, lora_alpha=2 * settings.lora_rank, target_modules="all-linear")
    # peft puts the update into the layers of the transformer itself, so the model need not know of the wrapper.
    adapted = get_peft_model(model[0].auto_model, config)
    # A low-rank update does not overfit the way full tuning does; dropout only costs it accuracy.
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    merge: Callable[[], Any] = adapted.merge_and_unload
    return merge


def _fit(
    model: SentenceTransformer,
    examples: Sequence[TieredExample],
    settings: TrainSettings,
    progress: Progress | None,
) -> list[float]:
    """Train the model in place; return the loss of every step."""
    import torch
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments

    from hins_memory.train.callbacks import WatchCallback
    from hins_memory.train.dataset import to_dataset
    from hins_memory.train.loss import TieredInfoNCELoss

    watch = WatchCallback(progress)
    steps = settings.steps(len(examples))
    with tempfile.TemporaryDirectory(prefix="hins-train-") as scratch:
        arguments = SentenceTransformerTrainingArguments(
            output_dir=scratch,
            max_steps=steps,
            per_device_train_batch_size=settings.batch_size,
            learning_rate=settings.rate,
            warmup_steps=math.ceil(settings.warmup * steps),
            weight_decay=0.01,
            bf16=bf16_supported(model.device.type),
            use_cpu=not torch.cuda.is_available(),
            seed=settings.seed,
            data_seed=settings.seed,
            logging_steps=1,
            # The filter would show the watch an average in the place of a loss that is no number.
            logging_nan_inf_filter=False,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        trainer = SentenceTransformerTrainer(
            model=model,
            args=arguments,
            train_dataset=to_dataset(examples, settings.negatives),
            loss=TieredInfoNCELoss(model, settings.temperature, settings.micro_batch_size),
            callbacks=[watch],
        )
        # The default callback prints every logged dictionary to stdout, which `--json` needs for itself.
        trainer.remove_callback(_printer())
        trainer.train()
    return watch.losses


def _printer() -> Any:
    from transformers.trainer_callback import PrinterCallback

    return PrinterCallback


def _manifest(
    base: str, examples: Sequence[TieredExample], settings: TrainSettings, losses: list[float], seconds: float
) -> dict[str, Any]:
    from hins_memory.train.dataset import data_digest

    packages = ("hins-memory", "torch", "transformers", "sentence-transformers", "peft")
    return {
        "base": base,
        "mode": settings.mode,
        "seed": settings.seed,
        "settings": asdict(settings) | {"learning_rate": settings.rate, "steps": settings.steps(len(examples))},
        "data": {
            "digest": data_digest(examples),
            "examples": len(examples),
            "sources": dict(Counter(example.positive.source for example in examples)),
            "tiers": dict(Counter(n.tier.value for example in examples for n in example.negatives)),
        },
        "metrics": {"loss": losses, "train_seconds": round(seconds, 1)},
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in packages},
    }
