"""What the endpoints of capture take: one event, or a list of events, as JSON; unknown names are refused."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator

from hins_memory.encoders.manifest import is_version_id
from hins_memory.types import Answer, Deletion, Feedback, Memory, RankedMemory, Retrieval, Scope, Turn, new_id, now

__all__ = [
    "MAX_EVENTS",
    "Batch",
    "DeletionBody",
    "EventBody",
    "MemoryBody",
    "OutcomeBody",
    "Recorded",
    "RetrievalBody",
    "TurnBody",
    "events_of",
]

#: Events in one request.
MAX_EVENTS = 500
_MAX_ID_BYTES = 512
_MAX_SCOPE_BYTES = 2000
_MAX_RESULTS = 1000
_MAX_CHARS = 1_000_000
# Seconds since the epoch from 1970 to the year 3000; milliseconds of our time are far beyond.
_LAST_TIME = 32_503_680_000.0

_MODEL_ID = re.compile(r"hins-([^:]+)(?::(?:query|document))?")


def _plain(value: Any) -> Any:
    """Refuse what is not a text that every database can hold as it is."""
    if not isinstance(value, str):
        raise ValueError(f"it is of the type {type(value).__name__}; write it as a string")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("it holds half of a surrogate pair; send well-formed Unicode") from None
    if "\x00" in value:
        raise ValueError("it holds a NUL character; leave that out")
    return value


def _id(value: Any) -> Any:
    value = _plain(value)
    if not value:
        raise ValueError("it is empty; give the id that your agent knows it by")
    if len(value.encode("utf-8")) > _MAX_ID_BYTES:
        raise ValueError(f"it has over {_MAX_ID_BYTES} bytes; use a shorter id, e.g. a digest of it")
    return value


def _name(value: Any) -> Any:
    value = _plain(value)
    if not value:
        raise ValueError("it is empty; leave the field out where there is no such name")
    return value


def _seconds(value: Any) -> Any:
    number = not isinstance(value, bool) and isinstance(value, (int, float)) and math.isfinite(value)
    if not number or not 0 <= value < _LAST_TIME:
        raise ValueError("it is not a time in seconds since 1970 (UTC); milliseconds are divided by 1000")
    return float(value)


_Text = Annotated[str, BeforeValidator(_plain), Field(max_length=_MAX_CHARS)]
_Id = Annotated[str, BeforeValidator(_id), Field(description=f"1 to {_MAX_ID_BYTES} bytes")]
_Name = Annotated[str, BeforeValidator(_name), Field(description="not empty")]
_Time = Annotated[
    float, BeforeValidator(_seconds), Field(description="seconds since 1970 (UTC); when it arrives, if left out")
]


def _version(name: str) -> str:
    """Return the version of a model id, e.g. of ``hins-v0003-0123abcd:query``; any other name as it is."""
    found = _MODEL_ID.fullmatch(name)
    return found[1] if found and is_version_id(found[1]) else name


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class ScopeBody(_Body):
    """Whose data it is: a user, an agent or a run, and the tenant of these where there is one."""

    user: _Name | None = None
    agent: _Name | None = None
    run: _Name | None = Field(None, description="one session of the user or agent")
    tenant: _Name | None = None

    @model_validator(mode="after")
    def _names_an_owner(self) -> ScopeBody:
        scope = Scope.of(user=self.user, agent=self.agent, run=self.run, tenant=self.tenant)
        if scope is None:
            raise ValueError("it names no user, agent or run; name at least one, else all such data would be shared")
        if len(scope.key.encode("utf-8")) > _MAX_SCOPE_BYTES:
            raise ValueError(f"it has over {_MAX_SCOPE_BYTES} bytes; use shorter names")
        return self

    def scope(self) -> Scope:
        """Return it as the log has it."""
        return Scope(user=self.user or "", agent=self.agent or "", run=self.run or "", tenant=self.tenant or "")


class _Timed(_Body):
    time: _Time | None = None

    @property
    def timed(self) -> bool:
        """Whether the client gave the time."""
        return self.time is not None

    def at(self) -> float:
        """Return its time."""
        return now() if self.time is None else self.time


class ResultBody(_Body):
    """One memory that a search returned."""

    memory_id: _Id
    text: _Text
    score: Annotated[float, Field(allow_inf_nan=False, description="the agent's own, higher is better")]


class RetrievalBody(_Timed):
    """A search and what it returned."""

    id: _Id | None = Field(None, description="outcomes name it; made up if left out")
    scope: ScopeBody
    query: _Text
    results: list[ResultBody] = Field(max_length=_MAX_RESULTS, description="best first; may be empty")
    encoder_version: Annotated[str, BeforeValidator(_plain), Field(max_length=_MAX_ID_BYTES)] = Field(
        "", description="what embedded the query: X-Hins-Version of /v1/embeddings, or the whole id of a model"
    )

    def event(self) -> Retrieval:
        """Return it as the log has it."""
        results = tuple(RankedMemory(one.memory_id, one.text, one.score) for one in self.results)
        name = self.id or new_id()
        return Retrieval(self.scope.scope(), self.query, results, _version(self.encoder_version), self.at(), name)


class MemoryBody(_Timed):
    """A text that the agent stored. The same id of the same owner again is an update."""

    id: _Id
    scope: ScopeBody
    conversation: _Text = Field(description="which conversation it is from")
    text: _Text
    speaker: _Text = Field("", description="whom it is by or about")
    turn_ids: list[_Id] = Field(default=[], max_length=_MAX_RESULTS)
    topic: _Text = ""

    def event(self) -> Memory:
        """Return it as the log has it."""
        scope, turns = self.scope.scope(), tuple(self.turn_ids)
        return Memory(self.id, scope, self.conversation, self.text, self.speaker, turns, self.topic, self.at())


class TurnBody(_Timed):
    """One utterance."""

    id: _Id | None = Field(None, description="memories name it; made up if left out")
    scope: ScopeBody
    conversation: _Text
    speaker: _Text
    text: _Text

    def event(self) -> Turn:
        """Return it as the log has it."""
        scope, name = self.scope.scope(), self.id or new_id()
        return Turn(scope, self.conversation, self.speaker, self.text, self.at(), name)


class DeletionBody(_Timed):
    """A memory was deleted from the agent, or, without `memory_id`, every memory of the scope."""

    scope: ScopeBody
    memory_id: _Id | None = None

    def event(self) -> Deletion:
        """Return it as the log has it."""
        return Deletion(self.scope.scope(), self.memory_id or "", self.at())


class AnswerBody(_Timed):
    """The text that the agent answered after a search."""

    type: Literal["answer"]
    retrieval_id: _Id
    text: Annotated[_Text, Field(min_length=1)]

    def event(self) -> Answer:
        """Return it as the log has it."""
        return Answer(self.retrieval_id, self.text, self.at())


class FeedbackBody(_Timed):
    """What a user or agent said of a memory that a search returned."""

    type: Literal["feedback"]
    retrieval_id: _Id
    memory_id: _Id
    polarity: Literal["POSITIVE", "NEGATIVE"]

    def event(self) -> Feedback:
        """Return it as the log has it."""
        return Feedback(self.memory_id, self.polarity, self.retrieval_id, self.at())


#: Any of the bodies above.
EventBody = RetrievalBody | MemoryBody | TurnBody | DeletionBody | AnswerBody | FeedbackBody
#: Outcomes have the ``type`` that `hins log export` gives them.
OutcomeBody = Annotated[AnswerBody | FeedbackBody, Field(discriminator="type")]
_Item = TypeVar("_Item")


def _which(value: Any) -> str:
    return "events" if isinstance(value, list) else "event"


#: One event, or a list of at most `MAX_EVENTS`, of which all are recorded or none.
Batch = Annotated[
    Annotated[_Item, Tag("event")] | Annotated[list[_Item], Field(min_length=1, max_length=MAX_EVENTS), Tag("events")],
    Discriminator(_which),
]


def events_of(body: EventBody | Sequence[EventBody]) -> list[EventBody]:
    """Return a request's events as a list."""
    return list(body) if isinstance(body, Sequence) else [body]


class Recorded(BaseModel):
    """What was done with a request's events.

    `recorded` were put into the log's queue, and are on disk within a second; `known` were there already. `ids` are
    those of turns, retrievals and memories, in the order of the request. With `capture` false nothing is recorded,
    because the project's settings say so.
    """

    recorded: int
    known: int = 0
    ids: list[str] = []
    capture: bool = True
