"""Positives: which memories are relevant to a query, from feedback and answers, with a confidence."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from hins_memory.mining.owner.neighbourhood import NEAREST, QUERIES, candidate_rows, positions_in
from hins_memory.mining.owner.owner import OwnerMemories
from hins_memory.mining.owner.text import clean, normalized
from hins_memory.mining.positives.attribution import (
    Question,
    attribute,
    choose_sources,
    is_refusal,
    supports,
    unretrieved_source,
)
from hins_memory.mining.positives.evidence import QueryEvidence, ResolvedRetrieval
from hins_memory.mining.positives.followups import apply_followups, find_followups, likelihood_ratios
from hins_memory.mining.settings import TOP_K, MineSettings
from hins_memory.types import Positive, PositiveSource, Retrieval, ScopeLog

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hins_memory.encoders.encoder import Encoder

__all__ = ["MAX_POSITIVES", "QueryEvidence", "find_positives"]

#: At most this many memories of one retrieval become positives, the unretrieved one first, then the best.
MAX_POSITIVES = 3


def find_positives(
    log: ScopeLog, owner: OwnerMemories, encoder: Encoder, settings: MineSettings, skipped: Counter[str]
) -> list[QueryEvidence]:
    """Return the evidence for each distinct query of the owner; what is left out is counted in `skipped`."""
    answers: dict[str, list[str]] = {}
    for answer in log.answers:
        answers.setdefault(answer.retrieval_id, []).append(clean(answer.text))
    resolved: list[ResolvedRetrieval] = []
    evidence: dict[str, QueryEvidence] = {}
    for retrieval in log.retrievals:
        if not retrieval.query.strip():
            skipped["retrievals without a query"] += 1
            continue
        rows = _live_rows(retrieval, owner, settings, skipped)
        query = clean(retrieval.query)
        key = normalized(query)
        resolved.append(ResolvedRetrieval(retrieval, key, rows, tuple(answers.pop(retrieval.id, ()))))
        evidence.setdefault(key, QueryEvidence(query))
    skipped["answers without their retrieval"] += sum(len(texts) for texts in answers.values())
    _from_feedback(log, resolved, owner, evidence, skipped)
    _from_answers(resolved, owner, evidence, encoder, settings, skipped)
    followups = find_followups(log, resolved, owner, encoder)
    ratios = likelihood_ratios(followups, resolved, evidence)
    apply_followups(followups, ratios, evidence, settings, skipped)
    return list(evidence.values())


def _live_rows(retrieval: Retrieval, owner: OwnerMemories, settings: MineSettings, skipped: Counter[str]) -> list[int]:
    """Return the rows of the results that still exist with the same text, best first, each once."""
    rows: dict[int, None] = {}
    for result in retrieval.results[:TOP_K]:
        row = owner.rows.get(result.memory_id)
        if row is None:
            skipped["results deleted since or never recorded"] += 1
        elif _changed(result.text, owner, row):
            skipped["results changed since"] += 1
        else:
            rows[row] = None
    return list(rows)


def _changed(text: str, owner: OwnerMemories, row: int) -> bool:
    return text != owner.memories[row].text and normalized(text) != owner.keys[row]


def _keep(evidence: QueryEvidence, row: int, positive: Positive) -> None:
    """Keep the positive of higher confidence for the same memory; a rejected memory does not become one."""
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
    resolved: list[ResolvedRetrieval],
    owner: OwnerMemories,
    evidence: dict[str, QueryEvidence],
    skipped: Counter[str],
) -> None:
    """Explicit feedback: confidence 1, or a rejection. The latest feedback on a memory counts."""
    by_id = {search.retrieval.id: search for search in resolved}
    returned: dict[str, list[ResolvedRetrieval]] = {}
    if any(not feedback.retrieval_id for feedback in log.feedback):
        for search in sorted(resolved, key=lambda search: search.retrieval.time):
            for result in search.retrieval.results:
                returned.setdefault(result.memory_id, []).append(search)
    for feedback in sorted(log.feedback, key=lambda feedback: feedback.time):
        rated = by_id.get(feedback.retrieval_id)
        if rated is None and not feedback.retrieval_id:
            earlier = [
                search for search in returned.get(feedback.memory_id, ()) if search.retrieval.time <= feedback.time
            ]
            rated = earlier[-1] if earlier else None
        if rated is None:
            skipped["feedback without its retrieval"] += 1
            continue
        row = owner.rows.get(feedback.memory_id)
        results = (result.text for result in rated.retrieval.results if result.memory_id == feedback.memory_id)
        shown = next(results, None)
        if row is None or (shown is not None and _changed(shown, owner, row)):
            skipped["feedback on a memory deleted or changed since"] += 1
            continue
        query = evidence[rated.key]
        if feedback.polarity == "NEGATIVE":
            query.positives.pop(row, None)
            query.rejected.add(row)
        else:
            query.rejected.discard(row)
            source: PositiveSource = "synthesis" if log.scope.synthetic else "feedback"
            _keep(query, row, _positive(query, owner, row, source, 1.0, rated.retrieval.id))


def _from_answers(
    resolved: list[ResolvedRetrieval],
    owner: OwnerMemories,
    evidence: dict[str, QueryEvidence],
    encoder: Encoder,
    settings: MineSettings,
    skipped: Counter[str],
) -> None:
    """Answer attribution: over the memories that the search returned, and the one that it should have."""
    import numpy as np

    pairs = [
        (search, answer)
        for search in resolved
        for answer in search.answers
        if (search.rows or (settings.unretrieved and owner.texts)) and not is_refusal(answer)
    ]
    skipped["answers that say nothing was found"] += sum(
        is_refusal(answer) for search in resolved for answer in search.answers
    )
    skipped["retrievals without an answer"] += sum(not search.answers for search in resolved)
    skipped["retrievals that found no live memory"] += sum(not search.rows for search in resolved)
    times = np.asarray([memory.time for memory in owner.memories])
    for start in range(0, len(pairs), QUERIES):
        part = pairs[start : start + QUERIES]
        joint = encoder.encode([f"{search.retrieval.query} {answer}" for search, answer in part], role="query")
        alone = encoder.encode([answer for _, answer in part], role="query")
        near = owner.neighbours.nearest(joint, NEAREST) if owner.neighbours else [None] * len(part)
        for number, (search, answer) in enumerate(part):
            query = evidence[search.key]
            question = Question(query.query, answer, joint[number], alone[number])
            # The search could not return memories that were stored later, perhaps from this answer.
            known = times <= search.retrieval.time if settings.unretrieved else None
            confidence, unretrieved = _attribute_answer(owner, question, search.rows, known, near[number])
            if unretrieved is not None and unretrieved[1] < settings.min_confidence:
                unretrieved = None
            query.answered = True
            query.plausible.update(
                row for row, probability in confidence.items() if probability >= settings.max_plausible
            )
            most = MAX_POSITIVES - (unretrieved is not None)
            chosen = choose_sources(confidence, search.rows, settings.min_confidence, most)
            sources: dict[int, tuple[PositiveSource, float]] = {row: ("answer", confidence[row]) for row in chosen}
            if unretrieved is not None:
                sources[unretrieved[0]] = "unretrieved", unretrieved[1]
            for row, (source, probability) in sources.items():
                _keep(query, row, _positive(query, owner, row, source, probability, search.retrieval.id))
            skipped["answers that point to no memory surely enough"] += not sources


def _attribute_answer(
    owner: OwnerMemories,
    question: Question,
    ranked: list[int],
    known: NDArray[np.bool_] | None,
    near: NDArray[np.int64] | None,
) -> tuple[dict[int, float], tuple[int, float] | None]:
    """Attribute an answer to the owner's memories, or, where there are very many, to those near it or returned.

    Args:
        owner: the owner's memories.
        question: what was asked and answered.
        ranked: the rows that the search returned, best first.
        known: which memories there were at the time of the search, shape (n,); None looks for no unretrieved source.
        near: the rows near to question and answer; None compares with all.

    Returns:
        How surely the answer comes from each row, and the unretrieved source, if any, with how sure that is.
    """
    import numpy as np

    rows = np.arange(len(owner.texts)) if near is None else candidate_rows(ranked, near)
    part, ranked = (owner, ranked) if near is None else (owner.take(rows), positions_in(rows, ranked))
    support = supports(part, question)
    confidence = dict(zip(rows.tolist(), attribute(support, ranked).tolist(), strict=True))
    if known is None:
        return confidence, None
    known = known[rows]
    known[ranked] = True
    unretrieved = unretrieved_source(np.where(known, support, support.min() - 1.0), ranked) if known.any() else None
    return confidence, None if unretrieved is None else (int(rows[unretrieved[0]]), unretrieved[1])
