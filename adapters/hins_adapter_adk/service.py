"""A memory service of Google ADK over a Mem0 memory that records its use."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from google.adk.memory.base_memory_service import BaseMemoryService, SearchMemoryResponse
from google.adk.memory.memory_entry import MemoryEntry
from google.genai import types

from hins_memory.sdk import AgentTurn, checked_async

__all__ = ["HinsMemoryService"]

# Of how many sessions it is known which of their events are stored.
_SESSIONS = 1000


class HinsMemoryService(BaseMemoryService):  # type: ignore[misc]  # google.adk is not read by mypy
    """Keeps what users say in Mem0, and finds it by meaning. The app's name is Mem0's ``agent_id``.

    Args:
        memory: a `hins_memory.AsyncMemory`, or an attached `mem0.AsyncMemory`.
        limit: how many memories a search returns at most.
        infer: whether Mem0's language model makes memories of what was said, as `mem0.AsyncMemory.add` takes it.

    Raises:
        AgentError: the memory is not one of those.

    Example:
        service = HinsMemoryService(hins_memory.AsyncMemory())
        runner = Runner(agent=agent, app_name="app", session_service=sessions, memory_service=service)
    """

    def __init__(self, memory: Any, *, limit: int = 10, infer: bool = True) -> None:
        #: the memory
        self.memory = checked_async(memory)
        self._limit, self._infer = limit, infer
        self._stored: OrderedDict[tuple[str, str, str], set[str]] = OrderedDict()

    def turn(self) -> AgentTurn:
        """Return the context manager of a turn, to be put around `Runner.run_async`."""
        turn: AgentTurn = self.memory.turn()
        return turn

    async def add_session_to_memory(self, session: Any) -> None:
        """Store what was said in a session, and was not stored by this object before."""
        await self.add_events_to_memory(
            app_name=session.app_name, user_id=session.user_id, events=session.events, session_id=session.id
        )

    async def add_events_to_memory(
        self,
        *,
        app_name: str,
        user_id: str,
        events: Sequence[Any],
        session_id: str | None = None,
        custom_metadata: Mapping[str, object] | None = None,
    ) -> None:
        """Store what was said in events; those of a session that were stored before are left out."""
        stored = self._stored_of((app_name, user_id, session_id)) if session_id else set()
        new = [event for event in events if _text(event.content) and not event.partial and event.id not in stored]
        if not new:
            return
        said = [
            {"role": "user" if event.author == "user" else "assistant", "content": _text(event.content)}
            for event in new
        ]
        ids = {event.id for event in new}
        stored |= ids
        try:
            await self._add(said, app_name, user_id, custom_metadata, infer=self._infer)
        except BaseException:
            stored -= ids
            raise

    async def add_memory(
        self,
        *,
        app_name: str,
        user_id: str,
        memories: Sequence[MemoryEntry],
        custom_metadata: Mapping[str, object] | None = None,
    ) -> None:
        """Store memories as they are."""
        for entry in memories:
            if text := _text(entry.content):
                metadata = {**entry.custom_metadata, **(custom_metadata or {})}
                await self._add([{"role": "user", "content": text}], app_name, user_id, metadata, infer=False)

    async def search_memory(self, *, app_name: str, user_id: str, query: str) -> SearchMemoryResponse:
        """Search the memories of a user of an app."""
        owner = {"user_id": user_id, "agent_id": app_name}
        found = await self.memory.search(query, filters=owner, top_k=self._limit)
        return SearchMemoryResponse(memories=[_entry(item) for item in found["results"]])

    async def delete_memory(self, *, app_name: str, user_id: str, memory_id: str | None = None) -> None:
        """Delete a memory of this user of this app; one of others, or that is not there, is left alone.

        Raises:
            ValueError: no memory is named.
        """
        if not memory_id:
            raise ValueError("Name the memory by its id.")
        found = await self.memory.get(memory_id)
        if found and (found.get("user_id"), found.get("agent_id")) == (user_id, app_name):
            await self.memory.delete(memory_id)

    async def _add(
        self, said: list[dict[str, str]], app: str, user: str, metadata: Mapping[str, object] | None, *, infer: bool
    ) -> None:
        await self.memory.add(said, user_id=user, agent_id=app, metadata=dict(metadata or {}), infer=infer)

    def _stored_of(self, session: Any) -> set[str]:
        stored = self._stored.setdefault(session, set())
        self._stored.move_to_end(session)
        while len(self._stored) > _SESSIONS:
            self._stored.popitem(last=False)
        return stored


def _text(content: Any) -> str:
    """Return the text of a content, without what a model only thought."""
    parts = (content.parts if content is not None else None) or []
    return "\n".join(part.text for part in parts if part.text and not part.thought).strip()


def _entry(item: Mapping[str, Any]) -> MemoryEntry:
    return MemoryEntry(
        id=str(item["id"]),
        content=types.Content(role="user", parts=[types.Part(text=item["memory"])]),
        timestamp=item.get("updated_at") or item.get("created_at"),
        custom_metadata={**(item.get("metadata") or {}), "score": item.get("score")},
    )
