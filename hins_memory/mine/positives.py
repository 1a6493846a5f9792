"""Positives: which memories a query was right to find, from feedback, answers and provenance, with a confidence."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hins_memory.mine.attribution import Question, attribute, choose_sources, is_refusal
from hins_memory.mine.owner import OwnerMemories
from hins_memory.mine.settings import MineSettings
from hins_memory.mine.text import clean, normalized, words
from hins_memory.types import Positive, PositiveSource, Retrieval, ScopeLog

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hins_memory.encoder import Encoder

__all__ = ["QueryEvidence", "find_positives"]

# A memory extracted from more turns than this cannot be told to come from one of them.
_MAX_SOURCE_TURNS = 2


@dataclass(slots=True)
class QueryEvidence:
    """All that the log says about one query of an owner.

    `positives` maps rows to positives; `rejected` are rows with negative feedback; `plausible` is, for each memory of
    the owner, the highest confidence with which any answer to the query points to it (None: no answer); `asked` says
    whether it was really searched for.
    """

    query: str
    positives: dict[int, Positive] = field(default_factory=dict)
    rejected: set[int] = field(default_factory=set)
    plausible: NDArray[np.float64] | None = None
    asked: bool = True


@dataclass(frozen=True, slots=True)
class _Found:
    """A retrieval with the rows that its results still stand for, best first, and the answers given after it."""

    retrieval: Retrieval
    rows: list[int]
    answers: tuple[str, ...]


def find_positives(
    log: ScopeLog, owner: OwnerMemories, encoder: Encoder, settings: MineSettings, skipped: Counter[str]
) -> list[QueryEvidence]:
    """Return the evidence for each distinct query of the owner; what is left out is counted in `skipped`."""
    answers: dict[str, list[str]] = {}
    for answer in log.answers:
        answers.setdefault(answer.retrieval_id, []).append(clean(answer.text, settings.max_chars))
    found: list[_Found] = []
    for retrieval in log.retrievals:
        if not retrieval.query.strip():
            skipped["retrievals without a query"] += 1
            continue
        rows = _live_rows(retrieval, owner, settings, skipped)
        found.append(_Found(retrieval, rows, tuple(answers.pop(retrieval.id, ()))))
    skipped["answers without their retrieval"] += sum(len(texts) for texts in answers.values())
    evidence: dict[str, QueryEvidence] = {}
    for one in found:
        query = clean(one.retrieval.query, settings.max_chars)
        evidence.setdefault(normalized(query), QueryEvidence(query))
    _from_feedback(log, owner, evidence, settings, skipped)
    _from_answers(found, owner, evidence, encoder, settings, skipped)
    if settings.provenance:
        _from_provenance(log, owner, evidence, settings)
    return list(evidence.values())


def _live_rows(retrieval: Retrieval, owner: OwnerMemories, settings: MineSettings, skipped: Counter[str]) -> list[int]:
    """Return the rows of the results that still exist with the same text, best first, each once."""
    rows: dict[int, None] = {}
    for result in retrieval.results[: settings.top_k]:
        row = owner.rows.get(result.memory_id)
        if row is None:
            skipped["results deleted since or never recorded"] += 1
        elif normalized(result.text) != owner.keys[row]:
            skipped["results changed since"] += 1
        else:
            rows[row] = None
    return list(rows)


def _keep(evidence: QueryEvidence, row: int, positive: Positive) -> None:
    """Keep the surer of two positives for the same memory; a rejected memory is none."""
    known = evidence.positives.get(row)
    if row not in evidence.rejected and (known is None or positive.confidence > known.confidence):
        evidence.positives[row] = positive


def _positive(
    evidence: QueryEvidence, owner: OwnerMemories, row: int, source: PositiveSource, confidence: float, retrieval: str
) -> Positive:
    memory = owner.memories[row]
    return Positive(evidence.query, memory.id, owner.texts[row], source, confidence, retrieval)


def _from_feedback(
    log: ScopeLog,
    owner: OwnerMemories,
    evidence: dict[str, QueryEvidence],
    settings: MineSettings,
    skipped: Counter[str],
) -> None:
    """Explicit feedback: confidence 1, or a rejection. The latest word on a memory counts."""
    by_id = {retrieval.id: retrieval for retrieval in log.retrievals}
    for feedback in sorted(log.feedback, key=lambda one: one.time):
        retrieval = by_id.get(feedback.retrieval_id)
        if retrieval is None and not feedback.retrieval_id:
            earlier = [
                one
                for one in log.retrievals
                if one.time <= feedback.time and any(result.memory_id == feedback.memory_id for result in one.results)
            ]
            retrieval = max(earlier, key=lambda one: one.time) if earlier else None
        if retrieval is None or not retrieval.query.strip():
            skipped["feedback without its retrieval"] += 1
            continue
        row = owner.rows.get(feedback.memory_id)
        shown = [result.text for result in retrieval.results if result.memory_id == feedback.memory_id]
        if row is None or (shown and normalized(shown[0]) != owner.keys[row]):
            skipped["feedback on a memory deleted or changed since"] += 1
            continue
        one = evidence[normalized(clean(retrieval.query, settings.max_chars))]
        if feedback.polarity == "NEGATIVE":
            one.positives.pop(row, None)
            one.rejected.add(row)
        else:
            one.rejected.discard(row)
            _keep(one, row, _positive(one, owner, row, "feedback", 1.0, retrieval.id))


def _from_answers(
    found: list[_Found],
    owner: OwnerMemories,
    evidence: dict[str, QueryEvidence],
    encoder: Encoder,
    settings: MineSettings,
    skipped: Counter[str],
) -> None:
    """Answer attribution, over the memories that the search returned."""
    import numpy as np

    pairs = [(one, answer) for one in found for answer in one.answers if one.rows and not is_refusal(answer)]
    skipped["answers that say nothing was found"] += sum(is_refusal(answer) for one in found for answer in one.answers)
    skipped["retrievals without an answer"] += sum(not one.answers for one in found)
    skipped["retrievals that found no live memory"] += sum(not one.rows for one in found)
    joint = encoder.encode([f"{one.retrieval.query} {answer}" for one, answer in pairs], role="query")
    alone = encoder.encode([answer for _, answer in pairs], role="query")
    for number, (one, answer) in enumerate(pairs):
        query = evidence[normalized(clean(one.retrieval.query, settings.max_chars))]
        question = Question(query.query, answer, joint[number], alone[number])
        confidence = attribute(owner, question, one.rows)
        query.plausible = confidence if query.plausible is None else np.maximum(query.plausible, confidence)
        chosen = choose_sources(confidence, one.rows, settings.min_confidence, settings.max_positives)
        for row in chosen:
            _keep(query, row, _positive(query, owner, row, "answer", float(confidence[row]), one.retrieval.id))
        skipped["answers that point to no memory surely enough"] += not chosen


def _from_provenance(
    log: ScopeLog, owner: OwnerMemories, evidence: dict[str, QueryEvidence], settings: MineSettings
) -> None:
    """Extracted memories and their source turns: the turn is searched for the fact that was made of it."""
    turns = {turn.id: turn for turn in log.turns}
    for row, memory in enumerate(owner.memories):
        sources = [turns[turn] for turn in memory.turn_ids if turn in turns]
        if not sources or len(memory.turn_ids) > _MAX_SOURCE_TURNS:
            continue
        facts = set(words(memory.text))
        shares = [len(facts & set(words(turn.text))) / max(len(facts), 1) for turn in sources]
        share, turn = max(zip(shares, sources, strict=True), key=lambda pair: pair[0])
        query = clean(turn.text, settings.max_chars)
        # A turn stored as it was said teaches nothing: the query would be its own answer.
        if not query.strip() or normalized(query) in owner.keys[row] or share < settings.min_confidence:
            continue
        one = evidence.setdefault(normalized(query), QueryEvidence(query, asked=False))
        _keep(one, row, _positive(one, owner, row, "provenance", share, ""))
