"""A synthetic conversation: its turns, the items that are stored, and the questions about them."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Conversation", "Item", "Query", "Utterance"]


@dataclass(frozen=True, slots=True)
class Utterance:
    """One turn: speaker, text, and the session, counted from 0."""

    speaker: str
    text: str
    session: int


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to store: a turn, or a fact extracted from turns.

    Attributes:
        speaker: who said it, or whom the fact is about.
        text: as it is stored, e.g. ``Ana: I have two dogs.`` or ``Ana has two dogs.``
        session: the session, counted from 0.
        turns: the indexes of the turns that it was made of; empty for a packaged fact.
    """

    speaker: str
    text: str
    session: int
    turns: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Query:
    """A question, the indexes of the items that answer it, its kind, and the answer ("" if not known)."""

    text: str
    items: tuple[int, ...]
    kind: str
    answer: str = ""


@dataclass(frozen=True, slots=True)
class Conversation:
    """A long conversation of two people over several sessions.

    Attributes:
        id: unique among conversations of different content.
        speakers: the two names.
        turns: what was said, in order of time.
        items: what is stored of it, in order of time.
        queries: what is asked, each about items of this conversation.
        source: what it was made from, e.g. ``rules`` or the name of a model.
    """

    id: str
    speakers: tuple[str, str]
    turns: tuple[Utterance, ...]
    items: tuple[Item, ...]
    queries: tuple[Query, ...]
    source: str
