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
            What wrote it becomes part of its agent.
        encoder: what ranks, usually the stock encoder.
    """
    # The agent that a log was captured from stays part of it: two of one user are two owners here too.
    agent = f"{conversation.source}/{owner.agent}" if owner.agent else conversation.source
    scope = replace(owner, agent=agent)
    said = [_id(scope, conversation.id, "turn", place) for place in range(len(conversation.turns))]
    stored = [_id(scope, conversation.id, "item", place) for place in range(len(conversation.items))]
    for place, turn in enumerate(conversation.turns):
        time = _time(turn.session, place)
        yield Turn(scope, conversation.id, turn.speaker, turn.text, time, said[place])
    for place, item in enumerate(conversation.items):
        time = _time(item.session, max(item.turns, default=place))
        sources = tuple(said[turn] for turn in item.turns)
        yield Memory(stored[place], scope, conversation.id, item.text, item.speaker, sources, time=time)
    if conversation.queries:
        yield from _asked(conversation, scope, stored, encoder)


def _time(session: int, place: int) -> float:
    return _FIRST_DAY + session * _SESSION_SECONDS + place * _TURN_SECONDS


def _asked(conversation: Conversation, scope: Scope, ids: Sequence[str], encoder: Encoder) -> Iterator[Event]:
    # (n, dim), (queries, dim), (queries, n)
    stored = encoder.encode([item.text for item in conversation.items], role="document")
    asked = encoder.encode([query.text for query in conversation.queries], role="query")
    scores = asked @ stored.T
    last = max(item.session for item in conversation.items) + 1
    for number, query in enumerate(conversation.queries):
        time = _time(last, number)
        # What answers is among the results even where the encoder missed it: it is what the outcome speaks of.
        ranked = (-scores[number]).argsort(kind="stable")[:_RANKED].tolist()
        shown = ranked + [place for place in query.items if place not in ranked]
        results = tuple(
            RankedMemory(ids[place], conversation.items[place].text, float(scores[number, place])) for place in shown
        )
        retrieval = _id(scope, conversation.id, "query", number)
        yield Retrieval(scope, query.text, results, encoder.version, time, retrieval)
        for place in query.items:
            yield Feedback(ids[place], "POSITIVE", retrieval, time)
        if query.answer:
            yield Answer(retrieval, query.answer, time)


def _id(scope: Scope, conversation: str, kind: str, place: int) -> str:
    return hashlib.sha256(f"{scope.key}\n{conversation}\n{kind}\n{place}".encode()).hexdigest()[:32]
