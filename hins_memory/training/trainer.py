"""From tiered examples to a trained sentence-transformers folder, with sentence-transformers' own trainer."""

from __future__ import annotations

import copy
import platform
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hins_memory.encoders.encoder import Encoder
from hins_memory.encoders.manifest import DataSummary, Description, RunRecord, TrainingMetrics
from hins_memory.errors import NotEnoughDataError, TrainingError
from hins_memory.training.base import changed_base, weights_digest
from hins_memory.training.fit.checkpoints import check_space
from hins_memory.training.fit.processes import is_main, process_count, wait_for_all
from hins_memory.training.fit.replay import replayed
from hins_memory.training.postprocess.finish import finished, plain_model, train_queries
from hins_memory.training.postprocess.traffic import Samples, traffic_of_examples
from hins_memory.training.settings import TrainSettings
from hins_memory.types import TieredExample

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = ["TrainResult", "train_encoder"]

#: fewer examples than this teach nothing but noise
MIN_EXAMPLES = 16
_PACKAGES = ("hins-memory", "torch", "transformers", "sentence-transformers", "accelerate", "datasets", "peft")
# Two checkpoints are kept while a third is written; each holds the weights and AdamW's two moments.
_CHECKPOINTS_AT_ONCE = 3
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class TrainResult:
    """A trained encoder: its folder, loadable by sentence-transformers, and what the manifest is to say of it."""

    folder: Path
    manifest: Description


def train_encoder(
    examples: Sequence[TieredExample],
    folder: Path,
    *,
    base: str | Path | Encoder = "stock",
    settings: TrainSettings | None = None,
    progress: Progress | None = None,
    samples: Samples | None = None,
    checkpoints: Path | None = None,
) -> TrainResult:
    """Fine-tune an encoder on tiered examples (HiNS, arXiv 2601.14857) and save it.

    Under ``torchrun`` or ``accelerate launch`` every process calls this with the same arguments; together they do what
    one does alone, and the first one writes.

    Args:
        examples: what to learn from; their order does not matter beyond the seed.
        folder: where the trained model is written; must not exist or be empty.
        base: the encoder to start from, as for `Encoder.load`, or one that is loaded; it stays as it is.
        settings: how to train; None means the defaults.
        progress: called as (``train``, steps done, steps in all).
        samples: what is looked at beside the examples: traffic for the scores, held-out sets for early stopping, a
            general set for what is forgotten.
        checkpoints: a folder for checkpoints. The same call with it continues where a kill has cut the run, and ends
            with the weights of an undisturbed one. It is the caller's to remove.

    Raises:
        NotEnoughDataError: fewer than 16 examples.
        TrainingError: the loss or a weight is no longer a finite number; the folder is not empty or cannot be written;
            the disk has too little room; the checkpoints are of another training, or another process writes there; the
            weights of the base were overwritten meanwhile.
        EncoderError: the base cannot be loaded.
    """
    settings = settings or TrainSettings()
    samples = samples or Samples()
    _check(examples, folder, settings, samples)
    encoder = base if isinstance(base, Encoder) else Encoder.load(base)
    started = time.perf_counter()
    if not samples.traffic:
        samples = replace(samples, traffic=traffic_of_examples(examples, settings.seed))
    examples = replayed(examples, settings.replay, settings.seed)
    if settings.mode == "query":
        check_space(_bytes_needed(encoder.model, folder, settings, None))
        model, history, scores = train_queries(encoder, examples, samples, settings, progress)
    else:
        # The base is asked again after training: for averaging, for what was forgotten, and for the scale of scores.
        model = copy.deepcopy(plain_model(encoder))
        limit = model.max_seq_length
        finish = _prepare(model, settings)
        check_space(_bytes_needed(model, folder, settings, checkpoints))
        weights = weights_digest(encoder.model)
        start = [encoder.version, weights]
        history = _fit(model, examples, settings, (start, progress, samples.held_out, checkpoints))
        # Weights are read from their file as they are needed: who writes into it changes a loaded encoder.
        if weights_digest(encoder.model) != weights:
            raise changed_base(encoder.version)
        finish()
        model.max_seq_length = limit
        _check_finite(model)
        model, scores = finished(model, encoder, samples, settings) if is_main() else (model, {})
    _check_finite(model)
    manifest = _manifest(encoder.version, examples, settings, history, time.perf_counter() - started)
    manifest = replace(manifest, scores=scores, document_space=encoder.space if settings.mode == "query" else "")
    if is_main():
        _save(model, folder, manifest)
    wait_for_all()
    return TrainResult(folder, manifest)


def _check(examples: Sequence[TieredExample], folder: Path, settings: TrainSettings, samples: Samples) -> None:
    if len(examples) < MIN_EXAMPLES:
        raise NotEnoughDataError(
            f"There are {len(examples)} training examples; at least {MIN_EXAMPLES} are needed.",
            "Let the agent run longer, and record answers (answered) or feedback.",
        )
    if is_main() and folder.exists() and any(folder.iterdir()):
        raise TrainingError(f"{folder} is not empty.", "Give a new folder.")
    if settings.patience and not any(one.queries for one in samples.held_out):
        raise NotEnoughDataError(
            "Early stopping (patience) needs held-out queries, and there are none.",
            "Record more answers or feedback, or train without patience.",
        )


def _prepare(model: SentenceTransformer, settings: TrainSettings) -> Callable[[], Any]:
    """Make the model trainable in the mode; return what is to be called after training, before the model is saved."""
    import torch

    # Steps are smaller than what half precision tells apart; autocast computes in it all the same where it can.
    model.float()
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


def _check_finite(model: SentenceTransformer) -> None:
    """See that all weights are finite: the last step's update is in no loss."""
    import torch

    broken = [name for name, weight in model.named_parameters() if not bool(torch.isfinite(weight).all())]
    if broken:
        raise TrainingError(
            f"{len(broken)} of the trained encoder's weights are no finite numbers, the first {broken[0]}.",
            "Lower the learning rate, or raise the temperature.",
        )


def _bytes_needed(
    model: SentenceTransformer, folder: Path, settings: TrainSettings, checkpoints: Path | None
) -> dict[Path, int]:
    """Return how much is written where: the model, and checkpoints of what is trained."""
    if not is_main():
        return {}
    weights = sum(one.numel() * one.element_size() for one in model.parameters())
    trained = sum(one.numel() * one.element_size() for one in model.parameters() if one.requires_grad)
    needs = {folder: weights}
    if checkpoints is not None or settings.patience:
        needs[checkpoints or Path(tempfile.gettempdir())] = 3 * trained * _CHECKPOINTS_AT_ONCE
    return needs


def _fit(
    model: SentenceTransformer, examples: Sequence[TieredExample], settings: TrainSettings, rest: tuple[Any, ...]
) -> list[dict[str, Any]]:
    """Train the model in place; return the trainer's log."""
    from hins_memory.training.fit.dataset import data_digest, to_dataset
    from hins_memory.training.fit.fit import Fit, fit

    base, progress, held_out, checkpoints = rest
    identity = {
        "settings": settings.to_dict(),
        "data": data_digest(examples),
        "base": base,
        "processes": process_count(),
    }
    dataset = to_dataset(examples, settings.negatives)
    return fit(model, Fit(settings, dataset, held_out, checkpoints, identity, progress))


def _save(model: SentenceTransformer, folder: Path, manifest: Description) -> None:
    from safetensors import SafetensorError

    from hins_memory.training.card import add_card_section, prepare_card

    prepare_card(model, manifest.base)
    try:
        model.save(str(folder), safe_serialization=True)
        add_card_section(folder, manifest)
    except (OSError, RuntimeError, SafetensorError) as error:
        # Half a model is not an encoder.
        shutil.rmtree(folder, ignore_errors=True)
        raise TrainingError(
            f"The trained encoder could not be saved to {folder}: {error}", "Free disk space, then train again."
        ) from error


def _manifest(
    base: str,
    examples: Sequence[TieredExample],
    settings: TrainSettings,
    history: list[dict[str, Any]],
    seconds: float,
) -> Description:
    from hins_memory.training.fit.dataset import data_digest
    from hins_memory.training.fit.hardware import hardware, package_version
    from hins_memory.training.report import curves

    found = curves(history)
    best = max((value for _, value in found.held_out), default=None)
    # Steps before an interruption took time as well.
    fitting = found.seconds[-1] if found.seconds else 0.0
    return Description(
        base=base,
        mode=settings.mode,
        seed=settings.seed,
        settings=settings.to_dict() | {"learning_rate": settings.rate, "steps": settings.steps(len(examples))},
        data=DataSummary(
            digest=data_digest(examples),
            examples=len(examples),
            sources=dict(Counter(example.positive.source for example in examples)),
            tiers=dict(Counter(n.tier.value for example in examples for n in example.negatives)),
        ),
        metrics=TrainingMetrics(loss=found.loss, train_seconds=round(max(seconds, fitting), 1), best_held_out=best),
        run=RunRecord(hardware=hardware(), curves=found),
        versions={"python": platform.python_version()} | {name: package_version(name) for name in _PACKAGES},
    )
