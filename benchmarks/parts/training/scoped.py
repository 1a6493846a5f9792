"""Towers from the first part of each conversation's questions, scored on the later part: common, or its own.

Results are kept in a work folder, each under a digest of its inputs, so that an interrupted run continues where it was.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hins_memory.data.stored_vectors import StoredVectors, StoredVectorsWriter
from hins_memory.encoders.encoder import Encoder
from hins_memory.errors import NotEnoughDataError
from hins_memory.evaluation import EvalSet, evaluate_encoder
from hins_memory.evaluation.general import load_general
from hins_memory.loop.pipeline import LoopSettings, public_texts
from hins_memory.mining import mine
from hins_memory.mining.negatives.whole_store import store_owner
from hins_memory.mining.owner.text import clean
from hins_memory.mining.storage.evidence import OwnerEvidence, collect
from hins_memory.training import AuxiliaryData, TrainSettings, train_encoder
from hins_memory.training.query_samples import QuerySampler
from parts.common.files import write_whole
from parts.common.screen import stage
from parts.datasets.locomo import ANSWERABLE, Conversation, eval_set
from parts.training.modes import CUTOFFS, K, Traffic, code_digest

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Split", "Training", "first_part", "later_part", "run_training", "untrained"]

_QUICK_EXAMPLES = 64


def _digest(*parts: Any) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Split:
    """How a conversation's questions are parted: the first `share` of them is learned from, the rest is scored."""

    share: float


@dataclass(frozen=True, slots=True)
class Training:
    """One training: a tower from the first parts of conversations, which is scored on their later parts."""

    traffic: Traffic
    conversations: tuple[Conversation, ...]
    split: Split
    seed: int
    quick: bool = False

    @property
    def settings(self) -> TrainSettings:
        """The settings that are trained with."""
        settings = replace(LoopSettings().train, mode="tower", seed=self.seed, cutoffs=CUTOFFS)
        return replace(settings, min_steps=1, epochs=1.0) if self.quick else settings

    def path(self, work: Path) -> Path:
        """Return the file that the result is kept in."""
        names = [one.id for one in self.conversations]
        settings = asdict(self.settings), asdict(LoopSettings().mine), asdict(self.split), self.quick
        key = _digest(self.traffic.digest, self.traffic.base, self.traffic.memories, names, settings)
        whose = names[0] if len(names) == 1 else "all"
        name = f"{self.traffic.base}-{self.traffic.memories}-{self.split.share:g}-{whose}-{self.seed}-{key}.json"
        return work / "scoped" / name


def first_part(conversation: Conversation, split: Split) -> frozenset[str]:
    """Return the texts of the questions that are learned from, as the miner has them."""
    count = round(split.share * len(conversation.questions))
    return frozenset(clean(question.text) for question in conversation.questions[:count])


def later_part(conversation: Conversation, traffic: Traffic, split: Split) -> EvalSet:
    """Return the answerable questions that are scored, over everything that is stored of the conversation."""
    learned, whole = first_part(conversation, split), eval_set(conversation, traffic.memories)
    # A question that is asked again is known.
    later = (query for query in whole.queries if query.group in ANSWERABLE and clean(query.text) not in learned)
    return EvalSet(whole.name, whole.documents, tuple(later))


def untrained(traffic: Traffic, conversation: Conversation, split: Split, encoder: Encoder) -> list[float]:
    """Return nDCG of every question of a conversation's later part, 0 to 1."""
    found: list[float] = _scores(encoder, later_part(conversation, traffic, split))
    return found


def run_training(training: Training, base: Encoder, work: Path) -> dict[str, Any]:
    """Return a training's result: kept, or after mining, training and scoring.

    Returns:
        ``ndcg`` (conversation -> a value each question of the later part; empty where the first part is too little to
        train on), ``examples``, ``seconds``, ``code``.
    """
    path = training.path(work)
    if path.is_file():
        return dict(json.loads(path.read_text(encoding="utf-8")))
    with tempfile.TemporaryDirectory(prefix="hins-scoped-") as scratch:
        result = _measure(training, base, Path(scratch))
    write_whole(path, json.dumps(result).encode())
    return result


def _measure(training: Training, base: Encoder, scratch: Path) -> dict[str, Any]:
    code, settings = code_digest(), replace(LoopSettings().mine, seed=training.seed)
    owners = [_first_evidence(training, one, base) for one in training.conversations]
    examples = mine(owners, base, settings, public_texts()).examples
    with StoredVectorsWriter(scratch / "stored") as writer:
        for owner in owners:
            store_owner(writer, owner, base, settings)
    sampler = QuerySampler(training.seed)
    for owner in owners:
        if owner.owner is not None:
            sampler.add((query.query for query in owner.queries), owner.owner.texts)
    samples = sampler.sample(frozenset(one.positive.query for one in examples))
    auxiliary = AuxiliaryData(samples, general=load_general(), stored=StoredVectors(scratch / "stored"))
    started = time.perf_counter()
    try:
        trained = train_encoder(
            examples[:_QUICK_EXAMPLES] if training.quick else examples,
            scratch / "model",
            base=training.traffic.base,
            settings=training.settings,
            auxiliary=auxiliary,
        )
    except NotEnoughDataError as error:
        stage(f"{training.path(scratch).stem}: {error.problem}")
        return {"ndcg": {}, "examples": len(examples), "seconds": 0.0, "code": code}
    seconds = time.perf_counter() - started
    tower = Encoder.load(trained.folder)
    stage(f"{training.path(scratch).stem}: {len(examples)} examples, trained in {seconds:.0f} s")
    scores: Mapping[str, list[float]] = {
        one.id: untrained(training.traffic, one, training.split, tower) for one in training.conversations
    }
    return {"ndcg": scores, "examples": len(examples), "seconds": seconds, "code": code}


def _first_evidence(training: Training, conversation: Conversation, base: Encoder) -> OwnerEvidence:
    evidence = collect(training.traffic.logs[conversation.id], base, LoopSettings().mine, None)
    learned = first_part(conversation, training.split)
    return replace(evidence, queries=tuple(query for query in evidence.queries if query.query in learned))


def _scores(encoder: Encoder, later: EvalSet) -> list[float]:
    if not later.queries:
        return []
    found: list[float] = evaluate_encoder(encoder, [later], ks=(K,)).ndcg[K].tolist()
    return found
