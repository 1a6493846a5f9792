"""One cell of the table of benchmarks/modes.py: traffic, examples, a training, its scores and what it costs.

Results that take long are kept in a work folder, each under a digest of its inputs, so that an interrupted run
continues where it was.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

import hins_memory
from hins_memory.config import Settings
from hins_memory.data.stored_vectors import StoredVectors, StoredVectorsWriter
from hins_memory.encoders.encoder import Encoder
from hins_memory.errors import ConfigError
from hins_memory.evaluation import EvalSet, RankingScores, evaluate_encoder
from hins_memory.evaluation.general import load_general
from hins_memory.loop.pipeline import LoopSettings, Pipeline, public_texts
from hins_memory.mining import mine
from hins_memory.mining.negatives.whole_store import store_owner
from hins_memory.mining.storage.evidence import collect
from hins_memory.training import AuxiliaryData, QuerySample, TrainResult, TrainSettings, train_encoder
from hins_memory.training.query_samples import QuerySampler
from hins_memory.types import Feedback, ScopeLog, TieredExample
from parts.agents.mem0 import Mem0Player
from parts.common.files import write_whole
from parts.common.screen import progress, stage
from parts.datasets.locomo import Conversation, Memories, documents, eval_set, relevant
from parts.locomo.deployment import Fold

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from hins_memory.evaluation.skills import Half

__all__ = [
    "CUTOFFS",
    "Cell",
    "K",
    "Source",
    "Traffic",
    "Variant",
    "code_digest",
    "delta_bytes",
    "general_set",
    "play",
    "run_cell",
    "untrained_cell",
    "with_general_sets",
]

#: The rank that nDCG is cut at, and how many results of a search count for the cut-offs.
K = 10
#: Mem0's thresholds, because the traffic is Mem0's.
CUTOFFS = (0.1, 0.5, 0.95)
#: What training learns from: the outcomes of searches, or the dataset's evidence labels.
Source = Literal["outcomes", "labels"]
_QUICK_EXAMPLES = 64
_QUICK_GENERAL = 40
# What the names of a tower's weights begin with, before the names that they have in the base.
_TOWER = "0.sub_modules.query."


@dataclass(frozen=True, slots=True)
class Variant:
    """A way to train: a mode, with settings that differ from the defaults; `name` is as it was given."""

    name: str
    settings: TrainSettings

    @classmethod
    def parse(cls, text: str) -> Variant:
        """Read ``MODE`` or ``MODE:NAME=VALUE,NAME=VALUE``, e.g. ``lora:learning_rate=8e-4,epochs=4``.

        Raises:
            ConfigError: the mode, a name or a value is not one of `TrainSettings`.
        """
        mode, _, rest = text.partition(":")
        values: dict[str, Any] = {"mode": mode}
        for part in filter(None, rest.split(",")):
            name, _, value = part.partition("=")
            try:
                values[name] = json.loads(value)
            except ValueError:
                values[name] = value
        try:
            return cls(text, replace(LoopSettings().train, **values))
        except TypeError as error:
            raise ConfigError(f"{text!r} is not a way to train: {error}.", "Use names of TrainSettings.") from error


@dataclass(frozen=True, slots=True)
class Traffic:
    """What was captured while all conversations were played through Mem0.

    Attributes:
        base: the encoder that served, which training starts from too, as for `Encoder.load`.
        logs: user (the conversation's id) -> everything that the log holds of it.
        labels: the same searches with the dataset's evidence as feedback in the place of answers.
    """

    base: str
    memories: Memories
    digest: str
    logs: dict[str, ScopeLog]
    labels: dict[str, ScopeLog]


@dataclass(frozen=True, slots=True)
class Cell:
    """One training: of a variant with a seed, on a fold's traffic. `swap` says to measure a swap to it as well."""

    traffic: Traffic
    fold: Fold
    source: Source
    variant: Variant
    seed: int
    quick: bool = False
    swap: bool = False

    @property
    def settings(self) -> TrainSettings:
        """The settings that are trained with."""
        settings = replace(self.variant.settings, seed=self.seed, score_thresholds=CUTOFFS)
        return replace(settings, min_steps=1, epochs=1.0) if self.quick else settings

    def path(self, work: Path) -> Path:
        """Return the file that the result is kept in."""
        settings = asdict(self.settings), asdict(LoopSettings().mine), self.quick
        key = _digest(
            self.traffic.digest, self.traffic.base, self.traffic.memories, self.source, self.fold.train, settings
        )
        name = "-".join(
            (self.traffic.base, self.traffic.memories, self.source, self.variant.settings.mode, str(self.seed))
        )
        return work / "cells" / f"{name}-fold{self.fold.name}-{key}.json"


def _digest(*parts: Any) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


@lru_cache(maxsize=1)
def code_digest() -> str:
    """Return a digest of the miner's and the trainer's source, as it was at the first call."""
    root = Path(hins_memory.__file__).parent
    files = sorted([*(root / "mining").rglob("*.py"), *(root / "training").rglob("*.py")])
    return _digest(*(file.read_bytes() for file in files))


def play(conversations: Sequence[Conversation], memories: Memories, base: str, work: Path) -> Traffic:
    """Play conversations through a real Mem0 with an encoder, or read what an earlier run left in `work`."""
    from hins_memory.database.engine import open_database
    from hins_memory.log.reader import LogReader

    digest = _digest(*conversations)
    home = work / "traffic" / f"{base}-{memories}-{digest}"
    done = home / "played"
    settings = Settings(home=home, project="play", log_url="", capture=True)
    if not done.is_file():
        shutil.rmtree(home, ignore_errors=True)
        with Mem0Player(base, memories, settings) as player:
            for conversation in progress(conversations, f"mem0 ({memories})"):
                player.play(conversation)
        done.touch()
    found = {log.scope.user or "": log for log in LogReader(open_database(settings.database_url)).scope_logs()}
    logs = {one.id: found[one.id] for one in conversations}
    labels = {one.id: labelled(logs[one.id], one, memories) for one in conversations}
    return Traffic(base, memories, digest, logs, labels)


def labelled(log: ScopeLog, conversation: Conversation, memories: Memories) -> ScopeLog:
    """Return a log in which every evidence memory of every question 1-4 has positive feedback, and nothing else."""
    texts = {document.id: document.text for document in documents(conversation, memories)}
    by_text: dict[str, list[str]] = {}
    for memory in log.memories:
        by_text.setdefault(memory.text, []).append(memory.id)
    evidence = {
        question.text: gold
        for question, gold in zip(conversation.questions, relevant(conversation, memories), strict=True)
        if question.category != 5
    }
    feedback = tuple(
        Feedback(name, "POSITIVE", retrieval.id, retrieval.time)
        for retrieval in log.retrievals
        for document in sorted(evidence.get(retrieval.query, ()))
        for name in by_text.get(texts[document], ())
    )
    return replace(log, answers=(), feedback=feedback)


def untrained_cell(memories: Memories, fold: Fold, encoder: Encoder, quick: bool = False) -> dict[str, Any]:
    """Return the scores of an untrained encoder on a fold's held-out conversations, in the form of `run_cell`."""
    return _scores(encoder, fold.held_out, memories, quick)


def run_cell(cell: Cell, base: Encoder, work: Path) -> dict[str, Any]:
    """Return a cell's result: kept, or after mining, training and scoring.

    Returns:
        ``ndcg``, ``groups``, ``sets`` (a value each question), ``top_scores`` (the first `K` cosines of each),
        ``general`` (nDCG of the packaged general set, 0 to 1), ``examples``, ``mine_seconds``, ``train_seconds``,
        ``folder_bytes``, ``delta_bytes``, ``code``, and ``swap`` where it was measured.
    """
    path = cell.path(work)
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    if known is not None and (not cell.swap or "swap" in known):
        return dict(known)
    with tempfile.TemporaryDirectory(prefix="hins-modes-") as scratch:
        result = _measure(cell, base, Path(scratch))
    write_whole(path, json.dumps(result).encode())
    return result


def _measure(cell: Cell, base: Encoder, scratch: Path) -> dict[str, Any]:
    code = code_digest()
    started = time.perf_counter()
    examples, stored = _examples(cell, base, scratch / "stored")
    mined = time.perf_counter()
    samples = (_training_queries(cell, examples), _heldout_queries(cell))
    auxiliary = with_general_sets(AuxiliaryData(*samples, stored=stored), cell.quick)
    folder = scratch / "model"
    trained = train_encoder(examples, folder, base=cell.traffic.base, settings=cell.settings, auxiliary=auxiliary)
    seconds = time.perf_counter() - mined
    model = Encoder.load(trained.folder)
    result = _scores(model, cell.fold.held_out, cell.traffic.memories, cell.quick) | {
        "examples": len(examples),
        "mine_seconds": mined - started,
        "train_seconds": seconds,
        "folder_bytes": sum(file.stat().st_size for file in trained.folder.rglob("*") if file.is_file()),
        "delta_bytes": delta_bytes(base.model.state_dict(), model.model.state_dict(), cell.settings),
        "kept": (1.0 if stored else cell.settings.averaging_weight) * trained.manifest.scores["general"]["kept"],
        "code": code,
    }
    stage(f"{cell.path(scratch).stem}: {len(examples)} examples, trained in {seconds:.0f} s")
    if cell.swap:
        result["swap"] = _swap_cost(trained, cell, scratch / "agent")
    return result


def _examples(cell: Cell, base: Encoder, folder: Path) -> tuple[list[TieredExample], StoredVectors | None]:
    """Return what is trained on; for a tower also the stored vectors, which are written to a folder."""
    logs = cell.traffic.logs if cell.source == "outcomes" else cell.traffic.labels
    settings = replace(LoopSettings().mine, seed=cell.seed)
    evidence = [collect(logs[name], base, settings, None) for name in cell.fold.train]
    examples = mine(evidence, base, settings, public_texts()).examples
    if cell.settings.mode == "tower":
        with StoredVectorsWriter(folder) as writer:
            for owner in evidence:
                store_owner(writer, owner, base, settings)
    stored = StoredVectors(folder) if folder.is_dir() else None
    return examples[:_QUICK_EXAMPLES] if cell.quick else examples, stored


def _training_queries(cell: Cell, examples: Sequence[TieredExample]) -> list[QuerySample]:
    """Return a sample of the fold's searches, as the loop takes it, for score calibration."""
    sampler = QuerySampler(cell.seed)
    for name in cell.fold.train:
        log = cell.traffic.logs[name]
        sampler.add((one.query for one in log.retrievals), (memory.text for memory in log.memories))
    return sampler.sample(frozenset(one.positive.query for one in examples))


def _heldout_queries(cell: Cell) -> list[QuerySample]:
    """Return a sample of the searches in what is scored, as a store has them when it is swapped.

    It holds no labels; score calibration sets one number by how high the scores are.
    """
    sampler = QuerySampler(cell.seed)
    for conversation in cell.fold.held_out:
        one = eval_set(conversation, cell.traffic.memories)
        sampler.add((query.text for query in one.queries), one.documents.values())
    return sampler.sample()


def _scores(encoder: Encoder, conversations: Sequence[Conversation], memories: Memories, quick: bool) -> dict[str, Any]:
    sets = [one for one in (eval_set(conversation, memories) for conversation in conversations) if one.queries]
    found: RankingScores = evaluate_encoder(encoder, sets, ks=(K,))
    return {
        "ndcg": found.ndcg[K].tolist(),
        "groups": list(found.groups),
        "sets": list(found.sets),
        "top_scores": [[round(float(v), 5) for v in row if not np.isnan(v)] for row in found.top_scores],
        "general": evaluate_encoder(encoder, [general_set("judge", quick)], ks=(K,)).mean()[f"ndcg@{K}"],
    }


def with_general_sets(auxiliary: AuxiliaryData, quick: bool) -> AuxiliaryData:
    """Return what training uses with the sets on which it may lose little, as the loop gives them."""
    return replace(auxiliary, general=general_set("choose", quick)) if quick else auxiliary.with_packaged_sets()


def general_set(half: Half, quick: bool) -> EvalSet:
    """Return a half of the packaged general set, or a small part of it for a quick run."""
    whole = load_general(half)
    queries = whole.queries[:_QUICK_GENERAL] if quick else whole.queries
    wanted = {name for query in queries for name in query.relevant} if quick else whole.documents.keys()
    return EvalSet(whole.name, {name: whole.documents[name] for name in wanted}, queries)


def delta_bytes(base: Mapping[str, Tensor], trained: Mapping[str, Tensor], settings: TrainSettings) -> int:
    """Return how many bytes, as float32, turn the base into the trained encoder.

    A tensor that the base has too, under any name, needs none; in the modes `lora` and `tower` a changed matrix needs
    its two factors; any other tensor needs its own size.
    """
    known = {_content(tensor) for tensor in base.values()}
    total = 0
    for name, tensor in trained.items():
        if _content(tensor) in known:
            continue
        tuned = settings.mode in ("lora", "tower") and name.removeprefix(_TOWER) in base
        low_rank = tuned and tensor.ndim == 2
        total += settings.lora_rank * sum(tensor.shape) if low_rank else tensor.numel()
    return 4 * total


def _content(tensor: Tensor) -> str:
    # Averaging makes 0 of -0.
    return hashlib.sha256((tensor.detach().cpu().contiguous().float() + 0.0).numpy().tobytes()).hexdigest()


def _swap_cost(trained: TrainResult, cell: Cell, home: Path) -> dict[str, float]:
    """Store the held-out conversations in a real Mem0 with the base encoder, swap it, and return what that took."""
    from hins_memory import Memory

    memories, held_out = cell.traffic.memories, cell.fold.held_out
    settings = Settings(home=home, project="swap", log_url="", capture=False)
    memory: Any = Memory(embedder="hins", model=cell.traffic.base, settings=settings)
    try:
        for conversation in held_out:
            # One by one is slow; embedded in batches beforehand, they come out of the encoder's cache.
            memory.embedding_model.embed_batch([one.text for one in documents(conversation, memories)], "add")
            for messages in _messages(conversation, memories):
                memory.add(messages, user_id=conversation.id, infer=False)
        pipeline = Pipeline(settings, memory)
        version = pipeline.registry.add(trained.folder, trained.manifest)
        report = pipeline.swap(version.id, force=True)
    finally:
        memory.close()
    return {
        "stored": sum(len(documents(one, memories)) for one in held_out),
        "written": sum(index.written for index in report.indexes),
        "seconds": report.seconds,
    }


def _messages(conversation: Conversation, memories: Memories) -> Iterator[list[dict[str, str]]]:
    for _, session in groupby(documents(conversation, memories), key=lambda document: document.session):
        yield [{"role": "user", "name": one.speaker, "content": one.text} for one in session]
