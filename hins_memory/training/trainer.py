"""From tiered examples to a trained sentence-transformers folder, with sentence-transformers' own trainer."""

from __future__ import annotations

import copy
import platform
import shutil
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hins_memory.common.tracing import traced
from hins_memory.encoders.encoder import Encoder
from hins_memory.encoders.manifest import DataSummary, Description, RunRecord, TrainingMetrics
from hins_memory.errors import NotEnoughDataError, TrainingError
from hins_memory.training.auxiliary_data import AuxiliaryData
from hins_memory.training.base import changed_base, weights_digest
from hins_memory.training.fit.checkpoints import check_space
from hins_memory.training.fit.dataset import data_digest, texts_digest, to_dataset
from hins_memory.training.fit.fit import FitJob, fit
from hins_memory.training.fit.processes import is_main, process_count, wait_for_all
from hins_memory.training.fit.replay import general_texts, with_replay
from hins_memory.training.postprocess.weights import postprocess_weights, without_added_layers
from hins_memory.training.query_mode.train import train_query_map
from hins_memory.training.query_samples import samples_of_examples
from hins_memory.training.settings import DOCUMENTS_STAY, TrainSettings
from hins_memory.training.tower.tower import Tower
from hins_memory.types import Progress, TieredExample

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import nn

__all__ = ["TrainResult", "train_encoder"]

#: With fewer examples than this, training learns noise.
MIN_EXAMPLES = 16
_PACKAGES = ("hins-memory", "torch", "transformers", "sentence-transformers", "accelerate", "datasets", "peft")
# Two checkpoints are kept while a third is written; each holds the weights and AdamW's two moments.
_CHECKPOINTS_AT_ONCE = 3


@dataclass(frozen=True, slots=True)
class TrainResult:
    """A trained encoder: its folder, loadable by sentence-transformers, and its description for the manifest."""

    folder: Path
    manifest: Description


@traced("hins.train")
def train_encoder(
    examples: Sequence[TieredExample],
    folder: Path,
    *,
    base: str | Path | Encoder = "stock",
    settings: TrainSettings | None = None,
    progress: Progress | None = None,
    auxiliary: AuxiliaryData | None = None,
    checkpoints: Path | None = None,
    **renamed: Any,
) -> TrainResult:
    """Fine-tune an encoder on tiered examples (HiNS, arXiv 2601.14857) and save it.

    Under ``torchrun`` or ``accelerate launch`` every process calls this with the same arguments; together they do what
    one does alone, and the first one writes.

    Args:
        examples: what to learn from; their order does not matter beyond the seed.
        folder: where the trained model is written; must not exist or be empty.
        base: the encoder to start from, as for `Encoder.load`, or one that is loaded; it stays as it is.
        settings: how to train; None means the defaults. Nothing is stored here, so that the mode `auto` is `lora`.
        progress: called as (``train``, steps done, steps in all).
        auxiliary: what training uses beside the examples: queries for score calibration, held-out sets for early
            stopping, a general-retrieval set for the limit on forgetting.
        checkpoints: a folder for checkpoints. The same call with it continues an interrupted run, and ends
            with the weights of an undisturbed one. The caller removes it.
        renamed: ``samples``, the deprecated name of `auxiliary`.

    Raises:
        NotEnoughDataError: fewer than 16 examples.
        TypeError: an argument is not known.
        TrainingError: the loss or a weight is not a finite number; the folder is not empty or cannot be written;
            the disk has too little room; the checkpoints are of another training, or another process writes there; the
            weights of the base were overwritten meanwhile.
        EncoderError: the base cannot be loaded.
    """
    settings = settings or TrainSettings()
    if settings.mode == "auto":
        settings = replace(settings, mode="lora")
    auxiliary = _renamed(renamed, auxiliary) or AuxiliaryData()
    _check(examples, folder, settings, auxiliary)
    encoder = base if isinstance(base, Encoder) else Encoder.load(base)
    started = time.perf_counter()
    if not auxiliary.training_queries:
        auxiliary = replace(auxiliary, training_queries=samples_of_examples(examples, settings.seed))
    examples = with_replay(examples, settings.replay, settings.seed)
    trained_on = len(examples)
    if settings.mode == "query":
        check_space(_bytes_needed(encoder.model, folder, settings, None))
        model, history, scores = train_query_map(encoder, examples, auxiliary, settings, progress)
    else:
        # The base itself is needed after training: for averaging, for the limit on forgetting, and for calibration.
        tower = Tower(encoder, examples, auxiliary.stored, settings) if settings.mode == "tower" else None
        model = copy.deepcopy(tower.documents.model if tower else without_added_layers(encoder))
        max_tokens = model.max_seq_length
        merge_update = _make_trainable(model, settings)
        check_space(_bytes_needed(model, folder, settings, checkpoints))
        weights = weights_digest(encoder.model)
        identity = {
            "settings": settings.to_dict(),
            "data": data_digest(examples),
            "base": [encoder.version, weights],
            "processes": process_count(),
        }
        if tower is not None:
            identity["stored"] = tower.targets.digest()
            trained_on = len(tower.targets)
            data = (tower.dataset(), tower.loss, tower.encoder_of)
        else:
            dataset, kept = to_dataset(examples), list[str]()
            if settings.distillation:
                from hins_memory.training.loss.distillation import with_kept

                dataset, kept = with_kept(dataset, auxiliary.kept_texts or general_texts(), settings.seed)
                identity["kept"] = texts_digest(kept)
            data = (dataset, partial(_loss, settings=settings, kept=kept), _encoder_of)
        history = fit(model, FitJob(settings, *data, auxiliary.early_stopping_sets, checkpoints, identity, progress))
        # Weights are read from their file as they are needed: writing into the file changes a loaded encoder.
        if weights_digest(encoder.model) != weights:
            raise changed_base(encoder.version)
        merge_update()
        model.max_seq_length = max_tokens
        _check_finite(model)
        if not is_main():
            scores = {}
        elif tower is not None:
            model, scores = tower.postprocess(model, auxiliary)
        else:
            model, scores = postprocess_weights(model, encoder, auxiliary, settings)
    _check_finite(model)
    steps = settings.steps(trained_on)
    manifest = _manifest(encoder.version, examples, settings, (history, steps), time.perf_counter() - started)
    space = encoder.space if settings.mode in DOCUMENTS_STAY else ""
    manifest = replace(manifest, scores=scores, document_space=space)
    if is_main():
        _save(model, folder, manifest)
    wait_for_all()
    return TrainResult(folder, manifest)


def _renamed(arguments: dict[str, Any], auxiliary: AuxiliaryData | None) -> AuxiliaryData | None:
    """Return `auxiliary`, given by this name or by that of version 0.2."""
    if unknown := arguments.keys() - {"samples"}:
        raise TypeError(f"train_encoder() got an unexpected keyword argument {min(unknown)!r}")
    if "samples" not in arguments:
        return auxiliary
    warnings.warn("train_encoder(samples=) is now called auxiliary=.", DeprecationWarning, stacklevel=3)
    given: AuxiliaryData | None = arguments["samples"]
    return given


def _loss(model: SentenceTransformer, settings: TrainSettings, kept: Sequence[str]) -> nn.Module:
    from hins_memory.training.loss.distillation import DistilledLoss
    from hins_memory.training.loss.loss import TieredInfoNCELoss

    loss = TieredInfoNCELoss(model, temperature=settings.temperature, micro_batch_size=settings.micro_batch_size)
    return DistilledLoss(model, loss, kept, settings.distillation) if settings.distillation else loss


def _encoder_of(model: SentenceTransformer) -> Encoder:
    return Encoder(model, "in training", cache_size=0)


def _check(examples: Sequence[TieredExample], folder: Path, settings: TrainSettings, auxiliary: AuxiliaryData) -> None:
    if len(examples) < MIN_EXAMPLES:
        raise NotEnoughDataError(
            f"There are {len(examples)} training examples; at least {MIN_EXAMPLES} are needed.",
            "Let the agent run longer, and record answers (answered) or feedback.",
        )
    if is_main() and folder.exists() and any(folder.iterdir()):
        raise TrainingError(f"{folder} is not empty.", "Give a new folder.")
    if settings.patience and not any(one.queries for one in auxiliary.early_stopping_sets):
        raise NotEnoughDataError(
            "Early stopping (patience) needs held-out queries, and there are none.",
            "Record more answers or feedback, or train without patience.",
        )


def _make_trainable(model: SentenceTransformer, settings: TrainSettings) -> Callable[[], Any]:
    """Make the model trainable in the mode; return a function that merges the update, called after training."""
    import torch

    # Half precision would round small steps away; autocast still computes in it where it can.
    model.float()
    if settings.max_tokens:
        model.max_seq_length = min(settings.max_tokens, model.max_seq_length or settings.max_tokens)
    if settings.mode == "full":
        return lambda: None
    if settings.mode == "tower":
        # Other layers, such as one that offsets scores, are the documents' own.
        model.requires_grad_(False)
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(settings.seed)
    targets = _upper_half(model[0].auto_model) if settings.mode == "tower" else "all-linear"
    config = LoraConfig(r=settings.lora_rank, lora_alpha=2 * settings.lora_rank, target_modules=targets)
    # peft changes the layers of the transformer itself, so that the model works without the wrapper.
    adapted = get_peft_model(model[0].auto_model, config)
    # A low-rank update does not overfit the way full tuning does; dropout only costs it accuracy.
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    merge: Callable[[], Any] = adapted.merge_and_unload
    return merge


def _upper_half(transformer: nn.Module) -> list[str] | str:
    """Return the names of the linear layers in the upper half of a transformer's blocks; all where it has none."""
    import torch

    stacks = [(name, one) for name, one in transformer.named_modules() if isinstance(one, torch.nn.ModuleList)]
    if not stacks:
        return "all-linear"
    stack, blocks = max(stacks, key=lambda pair: len(pair[1]))
    names = [
        f"{stack}.{number}.{name}"
        for number in range(len(blocks) // 2, len(blocks))
        for name, module in blocks[number].named_modules()
        if isinstance(module, torch.nn.Linear)
    ]
    return names or "all-linear"


def _check_finite(model: SentenceTransformer) -> None:
    """Check that all weights are finite: no loss is computed after the last step."""
    import torch

    broken = [name for name, weight in model.named_parameters() if not bool(torch.isfinite(weight).all())]
    if broken:
        raise TrainingError(
            f"{len(broken)} of the trained encoder's weights are not finite numbers, the first is {broken[0]}.",
            "Lower the learning rate, or raise the temperature.",
        )


def _bytes_needed(
    model: SentenceTransformer, folder: Path, settings: TrainSettings, checkpoints: Path | None
) -> dict[Path, int]:
    """Return how much is written where: the model, and checkpoints of what is trained."""
    if not is_main():
        return {}
    sides = 2 if settings.mode == "tower" else 1
    weights = sides * sum(one.numel() * one.element_size() for one in model.parameters())
    trained = sum(one.numel() * one.element_size() for one in model.parameters() if one.requires_grad)
    needs = {folder: weights}
    if checkpoints is not None or settings.patience:
        needs[checkpoints or Path(tempfile.gettempdir())] = 3 * trained * _CHECKPOINTS_AT_ONCE
    return needs


def _save(model: SentenceTransformer, folder: Path, manifest: Description) -> None:
    from safetensors import SafetensorError

    from hins_memory.training.card import add_card_section, prepare_card

    prepare_card(model, manifest.base)
    try:
        model.save(str(folder), safe_serialization=True)
        add_card_section(folder, manifest)
    except (OSError, RuntimeError, SafetensorError) as error:
        # An incomplete model must not be left there.
        shutil.rmtree(folder, ignore_errors=True)
        raise TrainingError(
            f"The trained encoder could not be saved to {folder}: {error}", "Free disk space, then train again."
        ) from error


def _manifest(
    base: str,
    examples: Sequence[TieredExample],
    settings: TrainSettings,
    course: tuple[list[dict[str, Any]], int],
    seconds: float,
) -> Description:
    from hins_memory.training.fit.hardware import hardware, package_version
    from hins_memory.training.report import curves

    history, steps = course
    recorded = curves(history)
    best = max((value for _, value in recorded.held_out), default=None)
    # Steps before an interruption took time as well.
    fit_seconds = recorded.seconds[-1] if recorded.seconds else 0.0
    return Description(
        base=base,
        mode=settings.mode,
        seed=settings.seed,
        settings=settings.to_dict() | {"learning_rate": settings.rate, "steps": steps},
        data=DataSummary(
            digest=data_digest(examples),
            examples=len(examples),
            sources=dict(Counter(example.positive.source for example in examples)),
            tiers=dict(Counter(negative.tier.value for example in examples for negative in example.negatives)),
        ),
        metrics=TrainingMetrics(
            loss=recorded.loss, train_seconds=round(max(seconds, fit_seconds), 1), best_held_out=best
        ),
        run=RunRecord(hardware=hardware(), curves=recorded),
        versions={"python": platform.python_version()} | {name: package_version(name) for name in _PACKAGES},
    )
