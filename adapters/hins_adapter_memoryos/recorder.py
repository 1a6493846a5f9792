"""Records what an attached Memoryos stores, finds and answers; never raises into the agent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from hins_adapter_memoryos.events import (
    knowledge_memory,
    memory_id,
    page_memory,
    page_turns,
    result_lists,
    retrieval_event,
    summary_memory,
)
from hins_memory.log.capture import never_raises
from hins_memory.sdk.context import set_to
from hins_memory.sdk.recorder import Recorder
from hins_memory.types import Answer, Deletion, Event, Feedback, Role, Scope

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hins_memory.log.capture import Capture

__all__ = ["MemoryosRecorder"]

#: What MemoryOS says in place of an answer when its language model cannot be reached.
_NO_ANSWER = "Error: Could not get response from LLM."

# The turns that knowledge is being extracted from.
_sources: ContextVar[tuple[str, ...]] = ContextVar("hins_memoryos_sources", default=())


class SearchedPart(Protocol):
    """What recording a search needs of a part of a Memoryos; `Part` is one."""

    @property
    def version(self) -> str:
        """The encoder version that embeds its queries; "" for MemoryOS's own encoder."""

    def operation(self, role: Role) -> AbstractContextManager[None]:
        """Do something with one encoder from its start to its end."""

    def embed(self, text: str) -> NDArray[np.float32]:
        """Return the unit vector of a query, shape (dim,)."""

    def document(self) -> Any:
        """Return what MemoryOS saves of it."""


class MemoryosRecorder(Recorder):
    """Turns what happens in one Memoryos into events.

    Args:
        capture: where events go; None records nothing.
        scope: the user and the assistant; None when they cannot be the name of an owner: nothing is recorded then.
    """

    def __init__(self, capture: Capture | None, scope: Scope | None) -> None:
        super().__init__(capture)
        self.scope = scope or Scope()
        self._has_owner = scope is not None
        # Ids of memories that were recorded here. Memories that were stored before are recorded when first retrieved.
        self._known: set[str] = set()

    @property
    def owner(self) -> Scope | None:
        """The user and the assistant; None where they cannot be the name of an owner."""
        return self.scope if self._has_owner else None

    @never_raises(None)
    def said(self, pair: Mapping[str, Any]) -> None:
        """Record what user and assistant said to one another."""
        for turn in page_turns(pair, self.scope):
            self.record(turn)

    @never_raises(None)
    def stored(self, session: Mapping[str, Any] | None, count: int) -> None:
        """Record the last `count` pages of a segment, and its summary if they are its first."""
        if session is None or self.capture is None:
            return
        pages = list(session.get("details") or ())
        for page in pages[len(pages) - count :]:
            self._record_page(page, session)
        if len(pages) <= count:
            self._record_memory(summary_memory(session, self.scope))

    @never_raises(None)
    def learned(self, entry: Mapping[str, Any], speaker: str) -> None:
        """Record an entry of knowledge, with the turns of the pages that it came from."""
        self._record_memory(knowledge_memory(entry, speaker, _sources.get(), self.scope))

    @never_raises(None)
    def forgotten(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """Record that MemoryOS dropped segments, pages or knowledge because it was full."""
        for entry in entries:
            id_ = memory_id(entry)
            self._known.discard(id_)
            # Without an id it would mean everything that the owner has.
            if id_:
                self.record(Deletion(self.scope, id_))

    @never_raises("")
    def searched(self, query: str, found: Mapping[str, Any], parts: Mapping[str, SearchedPart]) -> str:
        """Record a retrieval and return its id; "" when it is not recorded.

        The scores, which MemoryOS does not give back, are computed from the vectors; its own search, which would
        count as a visit, is not asked again.

        Args:
            query: what was asked.
            found: what `retrieve_context` returned.
            parts: the part that each of its lists came from.
        """
        if self.capture is None or not self._has_owner or not isinstance(query, str):
            return ""
        scored: list[tuple[Mapping[str, Any], float]] = []
        version = ""
        for name, field in result_lists.items():
            part, listed = parts[name], list(found.get(name) or ())
            with part.operation("query"):
                version = part.version if name == "retrieved_pages" or listed else version
                scored += _scored(part, query, listed, field)
            self._record_unknown(name, listed, parts)
        return self.retrieved(retrieval_event(query, scored, version, self.scope))

    def _record_unknown(
        self, name: str, listed: Sequence[Mapping[str, Any]], parts: Mapping[str, SearchedPart]
    ) -> None:
        """Record retrieved memories that were stored before recording began, or by another user of the assistant."""
        unknown = [entry for entry in listed if memory_id(entry) not in self._known]
        if not unknown:
            return
        if name == "retrieved_pages":
            sessions = parts[name].document()["sessions"].values()
            session_of = {memory_id(page): one for one in list(sessions) for page in list(one.get("details") or ())}
            for page in unknown:
                self._record_page(page, session_of.get(memory_id(page)))
        else:
            speaker = "user" if name == "retrieved_user_knowledge" else "assistant"
            for entry in unknown:
                self._record_memory(knowledge_memory(entry, speaker, (), self.scope))

    def extracting(self, pages: Sequence[Mapping[str, Any]]) -> AbstractContextManager[object]:
        """Record these pages as the source of knowledge that is added inside the block."""
        return set_to(_sources, tuple(turn.id for page in pages for turn in page_turns(page, self.scope)))

    @never_raises(None)
    def answered(self, retrieval_id: str, text: str) -> None:
        """Record the answer given after a retrieval; an empty id or text has nothing to record."""
        if text != _NO_ANSWER:
            super().answered(retrieval_id, text)

    def _record_page(self, page: Mapping[str, Any], session: Mapping[str, Any] | None) -> None:
        # Recorded again, because the pair may be older than the log; turns that the log has stay as they are.
        for turn in page_turns(page, self.scope):
            self.record(turn)
        self._record_memory(page_memory(page, session, self.scope))

    def _record_memory(self, event: Any) -> None:
        self._known.add(event.id)
        if event.id:
            self.record(event)
        else:
            self.left_out()

    def record(self, event: Event) -> None:
        """Put an event into the log's queue, unless it is of an owner without a name."""
        if self.capture is None:
            return
        if self._has_owner or isinstance(event, (Answer, Feedback)):
            super().record(event)
        else:
            self.left_out()


def _scored(
    part: SearchedPart, query: str, listed: Sequence[Mapping[str, Any]], field: str
) -> list[tuple[Mapping[str, Any], float]]:
    """Return what was found with its cosine, which is what MemoryOS ranked it by."""
    import numpy as np

    if not listed:
        return []
    vector = part.embed(query)
    return [(entry, float(np.dot(np.asarray(entry[field], dtype=np.float32), vector))) for entry in listed]
