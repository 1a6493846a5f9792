"""Records what a Mem0 memory does and what is known afterwards; never raises into the agent."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any

from hins_adapter_mem0.events import (
    deletion_event,
    memory_event,
    message_turns,
    result_events,
    result_items,
    retrieval_event,
    scope_of,
)
from hins_adapter_mem0.index import open_index
from hins_adapter_mem0.stores import GuardedStore
from hins_memory.log.capture import make_feedback, never_raises
from hins_memory.types import Answer, Deletion, Scope

if TYPE_CHECKING:
    from hins_memory.log.capture import Capture

__all__ = ["AgentTurn", "Recorder", "stored_payload", "stored_scopes"]

logger = logging.getLogger(__name__)


# The turn that each recorder's searches belong to, here and in the tasks started from here.
_turns: ContextVar[Mapping[int, AgentTurn]] = ContextVar("hins_mem0_turns")


class Recorder:
    """Turns the calls of one memory into events.

    Args:
        capture: where events go; None records nothing.
    """

    def __init__(self, capture: Capture | None) -> None:
        self.capture = capture

    @property
    def on(self) -> bool:
        """Whether anything is recorded."""
        return self.capture is not None

    @never_raises(None)
    def added(self, memory: Any, messages: Any, arguments: Mapping[str, Any], result: Any) -> None:
        """Record an `add`. Reads the store for memories that an LLM wrote, because the result leaves out whose."""
        scope = scope_of(arguments)
        items = result_items(result)
        inferred = arguments.get("infer", True) or arguments.get("memory_type")
        payloads: dict[str, Mapping[str, Any]] = {}
        if inferred:
            payloads = {str(item["id"]): stored_payload(memory, item["id"]) for item in items}
        for event in result_events(items, message_turns(messages, scope), scope, payloads):
            self._record(event)

    @never_raises("")
    def searched(self, query: str, filters: Mapping[str, Any] | None, result: Any, encoder_version: str) -> str:
        """Record a `search` and return the retrieval's id; "" when it is not recorded."""
        scope = scope_of(filters or {})
        # A wildcard searches across owners; it belongs to none of them.
        if "*" in (scope.user, scope.agent, scope.run) or not isinstance(query, str):
            return ""
        event = retrieval_event(query, scope, result, encoder_version)
        self._record(event)
        turn = _turns.get({}).get(id(self))
        if turn is not None:
            turn.retrieval_ids.append(event.id)
        return event.id

    @never_raises(None)
    def updated(self, memory: Any, memory_id: Any) -> None:
        """Record a memory as it is stored after an `update`."""
        payload = stored_payload(memory, memory_id)
        if payload:
            self._record(memory_event(str(memory_id), payload))

    @never_raises(None)
    def deleted(self, memory_id: Any, payload: Mapping[str, Any]) -> None:
        """Record a `delete`; `payload` is what was stored before."""
        self._record(deletion_event(str(memory_id), payload))

    @never_raises(None)
    def deleted_all(self, scopes: Sequence[Scope]) -> None:
        """Record that everything in these scopes was deleted."""
        for scope in scopes:
            self._record(Deletion(scope=scope))

    @never_raises(None)
    def answered(self, retrieval_id: str, text: str) -> None:
        """Record the answer given after a retrieval; an empty id or text has nothing to record."""
        if retrieval_id and isinstance(text, str) and text:
            self._record(Answer(retrieval_id=str(retrieval_id), text=text))

    def feedback(self, memory_id: str, polarity: str, retrieval_id: str | None) -> None:
        """Record feedback on a memory.

        Raises:
            ConfigError: the polarity is neither POSITIVE nor NEGATIVE.
        """
        self._record(make_feedback(memory_id, polarity, retrieval_id))

    def _record(self, event: Any) -> None:
        if self.capture is not None:
            self.capture.record(event)


def stored_payload(memory: Any, memory_id: Any) -> Mapping[str, Any]:
    """Return what a memory's store holds under an id; {} when there is nothing, or it cannot be read."""
    try:
        row = memory.vector_store.get(vector_id=memory_id)
    except Exception:
        # Mem0 meets the same error next, and says it to the caller.
        logger.debug("%s could not be read", memory_id, exc_info=True)
        return {}
    return dict(getattr(row, "payload", None) or {})


def stored_scopes(store: Any) -> list[Scope]:
    """Return every scope that holds a memory in a store; [] when it cannot be read."""
    try:
        index = open_index(store if isinstance(store, GuardedStore) else GuardedStore(store, None), "memories")
        return sorted({scope_of(record.payload) for page in index.pages(1000) for record in page})
    except Exception:
        logger.warning("The scopes of a store could not be read", exc_info=True)
        return []


class AgentTurn:
    """One turn of an agent: the searches made inside the block, and the answer that they led to.

    Example:
        with memory.turn() as turn:
            found = memory.search(question, filters={"user_id": "ann"})
            turn.answered(reply_from(found))

    `answered` records the text for every search of the block so far that has no answer yet; a block that is left
    without it records nothing. Works in coroutines, with a plain ``with``; searches in tasks started inside count too.
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
