"""Synthetic conversations as an ordinary interaction log: turns, memories, retrievals, answers and feedback."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from hins_memory.synthesis.conversation import Conversation
from hins_memory.types import Answer, Event, Feedback, Memory, RankedMemory, Retrieval, Scope, Turn

if TYPE_CHECKING:
    from hins_memory.encoders.encoder import Encoder

__all__ = ["events"]

_RANKED = 10
# A fixed day, so that the same corpus and seed give the same log: 2024-01-01, in seconds since the Unix epoch.
_FIRST_DAY = 1_704_067_200.0
_SESSION_SECONDS = 7 * 86_400.0
_TURN_SECONDS = 20.0


def events(conversation: Conversation, owner: Scope, encoder: Encoder) -> Iterator[Event]:
    """Yield the events of one conversation.

    Each question is a retrieval with what the encoder ranks highest in the conversation; feedback says which memories
    answer it, and an answer follows where one is known. Ids are digests of the content: writing a conversation twice
    adds nothing.

    Args:
        conversation: what was said, stored and asked.
        owner: whose conversation it is, of a synthetic tenant; several under one owner give each other easy negatives.
            The conversation's source becomes part of the agent's name.
        encoder: what ranks, usually the stock encoder.
    """
    # The captured agent stays part of the name: two agents of one user are two owners here too.
    agent = f"{conversation.source}/{owner.agent}" if owner.agent else conversation.source
    scope = replace(owner, agent=agent)
    turn_ids = [_id(scope, conversation.id, "turn", i) for i in range(len(conversation.turns))]
    memory_ids = [_id(scope, conversation.id, "item", i) for i in range(len(conversation.items))]
    for i, turn in enumerate(conversation.turns):
        time = _time(turn.session, i)
        yield Turn(scope, conversation.id, turn.speaker, turn.text, time, turn_ids[i])
    for i, item in enumerate(conversation.items):
        time = _time(item.session, max(item.turns, default=i))
        sources = tuple(turn_ids[turn] for turn in item.turns)
        yield Memory(memory_ids[i], scope, conversation.id, item.text, item.speaker, sources, time=time)
    if conversation.queries:
        yield from _searches(conversation, scope, memory_ids, encoder)


def _time(session: int, index: int) -> float:
    return _FIRST_DAY + session * _SESSION_SECONDS + index * _TURN_SECONDS


def _searches(conversation: Conversation, scope: Scope, ids: Sequence[str], encoder: Encoder) -> Iterator[Event]:
    # (n, dim), (queries, dim), (queries, n)
    documents = encoder.encode([item.text for item in conversation.items], role="document")
    queries = encoder.encode([query.text for query in conversation.queries], role="query")
    scores = queries @ documents.T
    last = max(item.session for item in conversation.items) + 1
    for i, query in enumerate(conversation.queries):
        time = _time(last, i)
        # The answers are among the results also where the encoder did not rank them high: feedback is about results.
        ranked = (-scores[i]).argsort(kind="stable")[:_RANKED].tolist()
        shown = ranked + [row for row in query.items if row not in ranked]
        results = tuple(RankedMemory(ids[row], conversation.items[row].text, float(scores[i, row])) for row in shown)
        retrieval = _id(scope, conversation.id, "query", i)
        yield Retrieval(scope, query.text, results, encoder.version, time, retrieval)
        for row in query.items:
            yield Feedback(ids[row], "POSITIVE", retrieval, time)
        if query.answer:
            yield Answer(retrieval, query.answer, time)


def _id(scope: Scope, conversation: str, kind: str, index: int) -> str:
    return hashlib.sha256(f"{scope.key}\n{conversation}\n{kind}\n{index}".encode()).hexdigest()[:32]
