"""Towers from a part of the traffic: which questions are learned from, which are scored, and the training between."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hins_memory.data.stored_vectors import StoredVectors, StoredVectorsWriter
from hins_memory.evaluation import EvalSet, evaluate_encoder
from hins_memory.loop.pipeline import LoopSettings, public_texts
from hins_memory.mining import mine
from hins_memory.mining.negatives.whole_store import store_owner
from hins_memory.mining.owner.text import clean
from hins_memory.mining.storage.evidence import OwnerEvidence, collect
from hins_memory.training import AuxiliaryData, TrainResult, TrainSettings, train_encoder
from hins_memory.training.query_samples import QuerySampler
from parts.datasets.locomo import ANSWERABLE, Conversation, eval_set
from parts.training.modes import CUTOFFS, K, Traffic, with_general_sets

if TYPE_CHECKING:
    from hins_memory.encoders.encoder import Encoder

__all__ = ["Split", "digest", "first_evidence", "first_part", "later_part", "scores", "settings_of", "train_tower"]

_QUICK_EXAMPLES = 64


def digest(*parts: Any) -> str:
    """Return 16 hexadecimal digits that stand for what a result depends on."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Split:
    """How a conversation's questions are parted: the first `share` of them is learned from, the rest is scored."""

    share: float


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


def scores(encoder: Encoder, later: EvalSet) -> list[float]:
    """Return nDCG of every question of a set, 0 to 1."""
    if not later.queries:
        return []
    found: list[float] = evaluate_encoder(encoder, [later], ks=(K,)).ndcg[K].tolist()
    return found


def first_evidence(traffic: Traffic, conversation: Conversation, split: Split, base: Encoder) -> OwnerEvidence:
    """Return what a conversation's first questions are evidence of, over everything that is stored of it."""
    evidence = collect(traffic.logs[conversation.id], base, LoopSettings().mine, None)
    learned = first_part(conversation, split)
    return replace(evidence, queries=tuple(query for query in evidence.queries if query.query in learned))


def settings_of(seed: int, *, quick: bool) -> TrainSettings:
    """Return the settings that towers are trained with."""
    settings = replace(LoopSettings().train, mode="tower", seed=seed, score_thresholds=CUTOFFS)
    return replace(settings, min_steps=1, epochs=1.0) if quick else settings


def train_tower(
    owners: Sequence[OwnerEvidence], encoder: Encoder, start: str | Encoder, seed: int, scratch: Path, *, quick: bool
) -> tuple[TrainResult, int, float]:
    """Train a tower on evidence.

    Args:
        owners: the evidence.
        encoder: the encoder of the documents.
        start: what the tower begins as.
        seed: of mining and training.
        scratch: an empty folder; the model is written to ``model`` in it.
        quick: few examples and steps.

    Returns:
        The training's result, how many examples there were, and the seconds that training took.

    Raises:
        NotEnoughDataError: there are too few examples.
    """
    mining = replace(LoopSettings().mine, seed=seed)
    examples = mine(owners, encoder, mining, public_texts()).examples
    with StoredVectorsWriter(scratch / "stored") as writer:
        for owner in owners:
            store_owner(writer, owner, encoder, mining)
    sampler = QuerySampler(seed)
    for owner in owners:
        if owner.owner is not None:
            sampler.add((query.query for query in owner.queries), owner.owner.texts)
    samples = sampler.sample(frozenset(one.positive.query for one in examples))
    auxiliary = with_general_sets(AuxiliaryData(samples, stored=StoredVectors(scratch / "stored")), quick)
    started = time.perf_counter()
    trained = train_encoder(
        examples[:_QUICK_EXAMPLES] if quick else examples,
        scratch / "model",
        base=start,
        settings=settings_of(seed, quick=quick),
        auxiliary=auxiliary,
    )
    return trained, len(examples), time.perf_counter() - started
