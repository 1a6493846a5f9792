"""Conversations with evidence labels as the miner's logs, and their questions over an owner's memories."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hins_memory.data.sample_conversations import load_sample
from hins_memory.encoders.encoder import Encoder
from hins_memory.mining.owner.owner import OwnerMemories, build_owner
from hins_memory.mining.positives.attribution import Question
from hins_memory.mining.positives.followups import FIRST_RANK_PRECISION, FOLLOWUP_RATES
from hins_memory.types import Answer, Memory, RankedMemory, Retrieval, Scope, ScopeLog
from parts.datasets.locomo import Conversation, documents

__all__ = ["TOP_K", "Asked", "Case", "cases", "followups", "locomo_scopes", "sample_scope", "scope_log"]

#: How many memories of a search the answer is attributed to.
TOP_K = 20


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, its answer, the ids of its evidence memories, and its category ("" where there is none)."""

    text: str
    answer: str
    evidence: frozenset[str]
    category: str = ""


@dataclass(frozen=True, slots=True)
class Case:
    """A question over an owner's memories: rows that the search returned, best first, and which rows are gold."""

    owner: OwnerMemories
    question: Question
    ranked: list[int]
    # (n,)
    gold: NDArray[np.bool_]
    category: str


def locomo_scopes(conversations: Sequence[Conversation]) -> Iterator[tuple[ScopeLog, list[Asked]]]:
    """Yield each conversation's memories, one a turn, and its questions with an answer and evidence (1-4)."""
    for one in conversations:
        scope = Scope(user=one.id)
        times = {turn.id: turn.time for turn in one.turns}
        memories = tuple(
            Memory(doc.id, scope, one.id, doc.text, speaker=doc.speaker, time=_seconds(times[doc.id], place))
            for place, doc in enumerate(documents(one, "turns"))
        )
        asked = [
            Asked(question.text, question.answer, frozenset(question.evidence), str(question.category))
            for question in one.questions
            if question.answer and question.evidence and question.category != 5
        ]
        yield ScopeLog(scope, memories=memories), asked


def _seconds(time: datetime | None, place: int) -> float:
    # The turns of a session have one time; a second each keeps their order.
    return place + (time.replace(tzinfo=timezone.utc).timestamp() if time else 0.0)


def sample_scope() -> tuple[ScopeLog, list[Asked]]:
    """Return the packaged sample conversations as one owner's memories, so that a search has much to choose from."""
    scope = Scope(user="sample")
    memories: list[Memory] = []
    asked: list[Asked] = []
    for one in load_sample():
        for session in one.sessions:
            for place, turn in enumerate(session.turns):
                text = f"{turn.speaker}: {turn.text}"
                memory = Memory(f"{one.id}/{turn.id}", scope, one.id, text, turn.speaker, time=session.time + place)
                memories.append(memory)
        asked += [
            Asked(question.question, question.answer, frozenset(f"{one.id}/{turn}" for turn in question.evidence))
            for question in one.questions
        ]
    return ScopeLog(scope, memories=tuple(memories)), asked


def cases(log: ScopeLog, asked: Sequence[Asked], encoder: Encoder) -> list[Case]:
    """Search the memories for each question by cosine and keep the best `TOP_K`."""
    owner = build_owner(log, encoder, Counter())
    queries = encoder.encode([one.text for one in asked], role="query")
    joint = encoder.encode([f"{one.text} {one.answer}" for one in asked], role="query")
    answers = encoder.encode([one.answer for one in asked], role="query")
    found = []
    for number, one in enumerate(asked):
        ranked = np.argsort(-(owner.vectors @ queries[number]), kind="stable")[:TOP_K].tolist()
        gold = np.zeros(len(owner.texts), dtype=bool)
        gold[[owner.rows[name] for name in one.evidence]] = True
        question = Question(one.text, one.answer, joint[number], answers[number])
        found.append(Case(owner, question, ranked, gold, one.category))
    return found


def scope_log(log: ScopeLog, asked: Sequence[Asked], found: Sequence[Case]) -> ScopeLog:
    """Return the owner's log with the questions searched and answered, as capture would have recorded it."""
    retrievals, answers = [], []
    for number, (one, case) in enumerate(zip(asked, found, strict=True)):
        results = tuple(
            RankedMemory(case.owner.memories[row].id, case.owner.texts[row], 1.0 / rank)
            for rank, row in enumerate(case.ranked, 1)
        )
        name = f"{log.scope.user}-{number}"
        retrievals.append(Retrieval(log.scope, one.text, results, id=name, time=4e9 + number))
        answers.append(Answer(name, one.answer, time=4e9 + number))
    return replace(log, retrievals=tuple(retrievals), answers=tuple(answers))


def followups(
    found: Sequence[Case], confidence: Sequence[NDArray[np.float64]], threshold: float, seed: int
) -> list[dict[str, Any]]:
    """Check what follow-ups say against the evidence, for made-up users.

    A user asks again 40% of the time when the attributed memory (where none is, the one ranked first) is not evidence,
    and 10% when it is: the ratio that the miner assumes. What the miner then says of the memory is compared, by band,
    with how often it is wrong; this tests the probabilities that it starts from, not the assumption about users.
    """
    rng = np.random.default_rng(seed)
    wrong_rate, right_rate = FOLLOWUP_RATES["repeated"]
    said, wrong = [], []
    for case, sure in zip(found, confidence, strict=True):
        best = max(case.ranked, key=lambda row: sure[row])
        attributed = bool(sure[best] >= threshold)
        row, before = (best, float(sure[best])) if attributed else (case.ranked[0], FIRST_RANK_PRECISION)
        is_wrong = not bool(case.gold[row])
        if rng.random() < (wrong_rate if is_wrong else right_rate):
            ratio = wrong_rate / right_rate
            said.append(ratio * (1 - before) / (ratio * (1 - before) + before))
            wrong.append(is_wrong)
    claimed, actual = np.asarray(said), np.asarray(wrong)
    rows = []
    for low, high in ((0.0, 0.3), (0.3, 0.6), (0.6, 0.85), (0.85, 1.01)):
        band = (claimed >= low) & (claimed < high)
        if band.any():
            share = {"said_wrong": 100 * float(claimed[band].mean()), "was_wrong": 100 * float(actual[band].mean())}
            rows.append({"table": "follow-ups", "from": low, "searches": int(band.sum()), **share})
    return rows
