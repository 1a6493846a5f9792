"""What a language model is asked to give back at each step of the synthesis, as pydantic classes."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

__all__ = ["Kind", "Lives", "Memories", "Persona", "Questions", "Session"]

Kind = Literal["single-hop", "multi-hop", "temporal", "open", "preference"]


class Persona(BaseModel):
    """An invented person."""

    facts: list[str] = Field(min_length=3, max_length=12, description="short first-person sentences")


class LifeEvent(BaseModel):
    """Something that happens to a person, or a preference that changes."""

    session: int = Field(ge=1, description="the sitting before which it happens")
    text: str = Field(min_length=8, max_length=300)


class Lives(BaseModel):
    """What two people have in common, and what happens to each of them."""

    topics: list[str] = Field(min_length=2, max_length=8, description="what both care about, each in another way")
    first: list[LifeEvent] = Field(min_length=2, max_length=12)
    second: list[LifeEvent] = Field(min_length=2, max_length=12)


class Utterance(BaseModel):
    """One turn; `speaker` is 1 or 2."""

    speaker: Literal[1, 2]
    text: str = Field(min_length=1, max_length=1200)


class Session(BaseModel):
    """One sitting."""

    turns: list[Utterance] = Field(min_length=4, max_length=40)


class ExtractedMemory(BaseModel):
    """A fact that a memory agent stores: third person, with the name, and the numbers of its turns."""

    speaker: Literal[1, 2]
    text: str = Field(min_length=8, max_length=400)
    turns: list[int] = Field(min_length=1, max_length=4)


class Memories(BaseModel):
    """What a memory agent extracts from one sitting."""

    memories: list[ExtractedMemory] = Field(min_length=1, max_length=40)


class AskedQuestion(BaseModel):
    """A question with its short answer and the numbers of the turns that it follows from."""

    question: str = Field(min_length=8, max_length=300)
    kind: Kind
    answer: str = Field(min_length=1, max_length=300)
    evidence: list[int] = Field(min_length=1, max_length=6)


class Questions(BaseModel):
    """Questions about a whole conversation."""

    questions: list[AskedQuestion] = Field(min_length=1, max_length=60)
