"""Cold start: from text that is free to a trained encoder, one seed at a time, each stage kept and taken up again."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from hins_memory.config import Settings
from hins_memory.database.engine import open_database
from hins_memory.encoders.encoder import Encoder
from hins_memory.errors import ConfigError
from hins_memory.evaluation import EvalQuery, EvalSet, evaluate_encoder
from hins_memory.evaluation.general import load_general
from hins_memory.log.reader import LogReader
from hins_memory.log.writer import LogWriter
from hins_memory.mining import MineSettings, mine
from hins_memory.synthesis import (
    FIRST_NAMES,
    Exclusion,
    RuleSettings,
    conversations_by_rules,
    read_corpus,
    write_conversations,
)
from hins_memory.training import AuxiliaryData, QuerySample, TrainSettings, train_encoder
from hins_memory.training.postprocess.calibration import calibrate_scores
from hins_memory.training.postprocess.weight_averaging import average_weights
from hins_memory.training.postprocess.weights import without_added_layers
from hins_memory.training.query_samples import QuerySampler
from parts.common.files import DATA, write_whole
from parts.datasets.locomo import (
    ANSWERABLE,
    Conversation,
    Memories,
    eval_set,
    load_locomo,
    sample_conversations,
    sample_sets,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer

__all__ = ["K", "Recipe", "evaluation_exclusion", "figures", "preference_sets", "prior_of", "scores", "train_seed"]

_Settings = TypeVar("_Settings", RuleSettings, MineSettings, TrainSettings)

K = 10
#: the first packaged starter, which later ones are averaged with
FIRST_STARTER = "hins-starter@cf4d74ca"
PREFERENCES = DATA / "preferences.jsonl"


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a cold-start encoder is trained from and how; the defaults are the packaged starter's.

    `share` of what is learned is added to the base, and `first_share` of what the first starter had learned: an average
    of two trainings finds more than either (docs/results/cold-start.md).
    """

    conversations: int = 130
    questions: int = 5000
    negatives: int = 3
    epochs: float = 1.0
    batch_size: int = 32
    learning_rate: float = 4e-4
    temperature: float = 0.03
    max_tokens: int = 64
    lora_rank: int = 16
    facts: float = 0.5
    preferences: int = 16
    events: int = 16
    threads: int = 8
    changes: int = 8
    told: float = 0.5
    rivals: float = 0.5
    assistants: float = 0.15
    replay: float = 0.0
    distillation: float = 10.0
    averaging_weight: float = 1.0
    share: float = 0.8
    first_share: float = 0.4


def evaluation_exclusion(conversations: Sequence[Conversation]) -> Exclusion:
    """Return what must not occur in training data: the speakers and the wordings of the evaluation sets."""
    scored = [*conversations, *sample_conversations()]
    texts = [turn.text for one in scored for turn in one.turns]
    texts += [fact.text for one in scored for fact in one.facts]
    texts += [question.text for one in scored for question in one.questions]
    names = {name for one in scored for name in one.speakers}
    # A name that is spoken of counts as well, if it is a first name that invented speakers could get.
    said = set(re.findall(r"\b[A-Z][a-z]+\b", " ".join(texts)))
    return Exclusion.of(texts, names | said.intersection(FIRST_NAMES))


def train_seed(
    corpus: Sequence[Path], exclusion: Exclusion, recipe: Recipe, seed: int, work: Path, base: str = "stock"
) -> tuple[Path, dict[str, Any]]:
    """Synthesise, mine and train with one seed; return the model's folder and what it took.

    A folder that a run before this one finished with the same recipe and base is taken as it is.

    Args:
        corpus: persona chats.
        exclusion: what must not occur in the training data.
        recipe: what it is trained from and how.
        seed: the random seed.
        work: the folder that a folder of each seed is made in.
        base: the encoder to train, as for `Encoder.load`; one other than the stock encoder has nothing in common with
            the first starter, so that its recipe has a `first_share` of 0.

    Raises:
        ConfigError: the folder is of another recipe or base, or the first starter does not fit the base.
    """
    if base != "stock" and recipe.first_share:
        raise ConfigError(f"The first starter cannot be averaged with {base}.", "Add --first-share 0.")
    folder = work / f"seed-{seed}"
    record = folder / "record.json"
    if record.is_file():
        content: dict[str, Any] = json.loads(record.read_text())
        if (content["recipe"], content.get("base", "stock")) != (asdict(recipe), Path(base).name):
            raise ConfigError(f"{folder} was made by another recipe.", "Use another --work folder.")
        return folder / "model", content
    shutil.rmtree(folder, ignore_errors=True)
    begun, cpu = time.perf_counter(), time.process_time()
    engine = open_database(Settings(home=folder, project="start").database_url)
    encoder = Encoder.load(base)
    # Log and miner look at the same texts.
    encoder = Encoder(encoder.model, encoder.version, cache_size=200_000)
    made = list(
        conversations_by_rules(read_corpus(corpus), _part(RuleSettings, recipe, seed), exclusion, recipe.conversations)
    )
    report = write_conversations(made, encoder, LogWriter(engine).write, questions=recipe.questions, seed=seed)
    mined = mine(LogReader(engine).scope_logs(), encoder, _part(MineSettings, recipe, seed))
    prepared = time.perf_counter() - begun
    auxiliary = AuxiliaryData(heldout_queries=score_sample(seed))
    settings = _part(TrainSettings, recipe, seed)
    trained = train_encoder(mined.examples, folder / "trained", base=encoder, settings=settings, auxiliary=auxiliary)
    if recipe.share < 1 or recipe.first_share:
        model = averaged(encoder, trained.folder, recipe)
        calibrated = calibrate_scores(model, encoder, auxiliary.heldout_queries, settings.score_thresholds)[0]
        calibrated.save(str(folder / "model"))
    else:
        trained.folder.rename(folder / "model")
    taken = {
        "recipe": asdict(recipe),
        "base": Path(base).name,
        "seconds": round(time.perf_counter() - begun, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "prepare_seconds": round(prepared, 1),
        "synthesis": report.to_dict(),
        "examples": len(mined.examples),
        "ratio": mined.report.to_dict()["ratio"],
        "ranked": mined.report.to_dict()["ranked"],
    }
    write_whole(record, json.dumps(taken, indent=1).encode())
    return folder / "model", taken


def averaged(encoder: Encoder, trained: Path, recipe: Recipe) -> SentenceTransformer:
    """Return the base with the recipe's shares of what a training and, if any, the first starter changed.

    Raises:
        EncoderError: an encoder cannot be loaded.
    """
    import torch

    base, model = without_added_layers(encoder), without_added_layers(Encoder.load(trained))
    average_weights(model, base, recipe.share)
    if not recipe.first_share:
        return model
    first = without_added_layers(Encoder.load(FIRST_STARTER))
    before, changed = base.state_dict(), first.state_dict()
    with torch.no_grad():
        for name, weight in model.state_dict().items():
            if weight.is_floating_point():
                # A view of the model's own weights: this changes the model.
                weight.add_(changed[name] - before[name], alpha=recipe.first_share)
    return model


def _part(kind: type[_Settings], recipe: Recipe, seed: int) -> _Settings:
    """Return settings of a stage: what the recipe has of their names, and their defaults for the rest."""
    named = {field.name: getattr(recipe, field.name) for field in fields(kind) if hasattr(recipe, field.name)}
    return kind(**named, seed=seed)


def score_sample(seed: int) -> list[QuerySample]:
    """Return the packaged conversations as a sample for score calibration.

    Synthetic questions score higher with their sources than real ones. Calibration sets one number by how high the
    scores are, and changes no ranking.
    """
    sampler = QuerySampler(seed)
    for one in sample_sets():
        sampler.add((query.text for query in one.queries), one.documents.values())
    return sampler.sample()


def prior_of(ranked: Sequence[Mapping[str, int]]) -> dict[str, float]:
    """Return the share of each tier among the memories that rank high, counted over all seeds."""
    counts = {tier: sum(one[tier] for one in ranked) for tier in ranked[0]}
    total = sum(counts.values())
    return {tier: count / total for tier, count in counts.items()}


def preference_sets(path: Path = PREFERENCES) -> list[EvalSet]:
    """Return the questions about what people like, one set a person: JSON lines of ``memories`` and ``questions``.

    Raises:
        ConfigError: the file cannot be read.
    """
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        return [
            EvalSet(
                row["person"],
                {str(place): text for place, text in enumerate(row["memories"])},
                tuple(EvalQuery(text, frozenset(map(str, places)), "preference") for text, places in row["questions"]),
            )
            for row in rows
        ]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ConfigError(f"{path} cannot be read: {error!r}.", "Restore the file.") from error


def scores(encoder: Encoder, data: Path | None) -> dict[str, NDArray[np.float64]]:
    """Return an encoder's nDCG@10 in percent on each question of each set; LoCoMo's where its file is given.

    ``locomo_turns`` and ``locomo_facts`` are the questions of categories 1 to 4, ``locomo_turns_5`` those of one.
    """
    talks = sample_conversations()
    found = {
        "sample": _scored(encoder, sample_sets())[0],
        "sample_facts": _scored(encoder, [eval_set(one, "facts") for one in talks])[0],
        "preferences": _scored(encoder, preference_sets())[0],
        "general": _scored(encoder, [load_general()])[0],
    }
    if data is None:
        return found
    conversations = load_locomo(data)
    kinds: tuple[Memories, ...] = ("turns", "facts")
    for memories in kinds:
        values, groups = _scored(encoder, [eval_set(one, memories) for one in conversations])
        found[f"locomo_{memories}"] = values[np.isin(groups, ANSWERABLE)]
        found |= {f"locomo_{memories}_{group}": values[groups == group] for group in sorted(set(groups.tolist()))}
    return found


def _scored(encoder: Encoder, sets: Sequence[EvalSet]) -> tuple[NDArray[np.float64], NDArray[np.str_]]:
    found = evaluate_encoder(encoder, sets, ks=(K,))
    return 100 * found.ndcg[K], np.asarray(found.groups)


def figures(values: Mapping[str, NDArray[np.float64]]) -> dict[str, float]:
    """Return the mean of each set of `scores`."""
    return {name: float(one.mean()) for name, one in values.items()}
