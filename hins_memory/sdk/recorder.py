"""Records answers, feedback and the retrievals of a turn, for every adapter; never raises into the agent."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, TypeVar

from hins_memory.log.capture import make_feedback, never_raises
from hins_memory.sdk.captures import join_capture, leave_capture
from hins_memory.types import Answer, Deletion, Event, Memory, RankedMemory, Retrieval, Scope

if TYPE_CHECKING:
    from hins_memory.config import Settings
    from hins_memory.log.capture import Capture

__all__ = ["AgentTurn", "Recorder"]

logger = logging.getLogger(__name__)
_Self = TypeVar("_Self", bound="Recorder")

# The turn that each recorder's searches belong to, here and in the tasks started from here.
_turns: ContextVar[Mapping[int, AgentTurn]] = ContextVar("hins_turns")


class Recorder:
    """Turns what an agent does into events; adapters add methods for their framework's calls.

    Args:
        capture: where events go; None records nothing.
    """

    def __init__(self, capture: Capture | None = None) -> None:
        self.capture = capture
        #: how many calls named no owner or no memory, and were not recorded
        self.unnamed = 0

    @property
    def on(self) -> bool:
        """Whether anything is recorded."""
        return self.capture is not None

    def join(self: _Self, settings: Settings, *, capture: bool = True) -> _Self:
        """Record into a project's log from now on, if both `capture` and the project's settings say so; return self."""
        if capture and settings.capture:
            self.capture = join_capture(settings, self)
        return self

    def leave(self, settings: Settings) -> None:
        """Write what waits to be recorded, and record nothing more; to be called after `join`."""
        if self.capture is not None:
            self.capture = None
            leave_capture(settings, self)

    def record(self, event: Event) -> None:
        """Put an event into the log's queue; does nothing when recording is off."""
        if self.capture is not None:
            self.capture.record(event)

    def retrieved(self, event: Retrieval) -> str:
        """Record a search, add it to the running turn if there is one, and return its id."""
        self.record(event)
        turn = _turns.get({}).get(id(self))
        if turn is not None:
            turn.retrieval_ids.append(event.id)
        return event.id

    def record_memory(self, scope: Scope | None, id_: str, conversation: str, text: str, **about: Any) -> None:
        """Record a memory; one whose owner has no name is only counted.

        Args:
            scope: whose it is.
            id_: the framework's own id.
            conversation: the conversation that it is of.
            text: what the encoder embeds.
            about: as those of `Memory`: its speaker, topic and turns.
        """
        if scope is None:
            self.left_out()
        else:
            self.record(Memory(id_, scope, conversation, text, **about))

    def record_deletion(self, scope: Scope | None, id_: str) -> None:
        """Record that a memory is gone; one whose owner has no name was never recorded."""
        if scope is not None:
            self.record(Deletion(scope, id_))

    def record_search(
        self, scope: Scope | None, query: str, found: Sequence[tuple[Scope | None, RankedMemory]], version: str
    ) -> None:
        """Record a search; one whose owner has no name is only counted.

        Args:
            scope: who searched.
            query: what was asked.
            found: what was found, best first, each with its owner. What is another one's is left out: it is not
                the searcher's to learn from; a search that found only such is not recorded.
            version: the encoder version that embedded the query; "" for the framework's own encoder.
        """
        if scope is None:
            self.left_out()
            return
        own = tuple(memory for owner, memory in found if owner is not None and owner.owner == scope.owner)
        if own or not found:
            self.retrieved(Retrieval(scope, query, own, version))

    @never_raises(None)
    def answered(self, retrieval_id: str, text: str) -> None:
        """Record the answer given after a retrieval; an empty id or text is ignored."""
        if retrieval_id and isinstance(text, str) and text:
            self.record(Answer(retrieval_id=str(retrieval_id), text=text))

    def feedback(self, memory_id: str, polarity: str, retrieval_id: str | None) -> None:
        """Record feedback on a memory.

        Raises:
            ConfigError: the polarity is neither POSITIVE nor NEGATIVE.
        """
        self.record(make_feedback(memory_id, polarity, retrieval_id))

    def turn(self) -> AgentTurn:
        """Return a context manager around one turn of the agent."""
        return AgentTurn(self)

    def left_out(self) -> None:
        """Count a call that named no owner or no memory and was not recorded; log it the first time."""
        self.unnamed += 1
        if self.unnamed == 1:
            logger.warning("Calls without an id, or with ids that cannot be the name of an owner, are not recorded")


class AgentTurn:
    """One turn of an agent: the searches made inside the block, and the answer that they led to.

    Example:
        with memory.turn() as turn:
            found = memory.search(question, filters={"user_id": "ann"})
            turn.answered(reply_from(found))

    `answered` records the text for every search of the block so far that has no answer yet; a block
    without it records no answer. Works in coroutines, with a plain ``with``; searches of tasks started inside count.
    """

    def __init__(self, recorder: Recorder) -> None:
        self.retrieval_ids: list[str] = []
        self._recorder = recorder
        self._answered = 0
        self._token: Token[Mapping[int, AgentTurn]] | None = None

    def answered(self, text: str) -> None:
        """Record the answer that the agent gave."""
        waiting = self.retrieval_ids[self._answered :]
        self._answered += len(waiting)
        for retrieval_id in waiting:
            self._recorder.answered(retrieval_id, text)

    def __enter__(self) -> AgentTurn:
        self._token = _turns.set({**_turns.get({}), id(self._recorder): self})
        return self

    def __exit__(self, *_: object) -> None:
        if self._token is not None:
            _turns.reset(self._token)
            self._token = None
