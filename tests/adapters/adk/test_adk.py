"""An agent of Google ADK with a Mem0 memory that records, where ADK is installed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("google.adk", reason="needs an environment with the extra adk")

from google.adk.agents import BaseAgent
from google.adk.events import Event
from google.adk.memory.memory_entry import MemoryEntry
from google.adk.runners import Runner
from google.adk.sessions import InMemorySessionService
from google.genai import types
from hins_adapter_adk import HinsMemoryService
from hins_adapter_mem0 import AsyncMemory

from hins_memory.config import Settings
from hins_memory.database.engine import open_database
from hins_memory.log.capture import flush_all
from hins_memory.log.reader import LogReader
from hins_memory.types import Scope

QUESTION = "Which instrument does Ann play?"
FACT = "Ann plays the cello in an orchestra."


def content(text: str, role: str = "user") -> types.Content:
    return types.Content(role=role, parts=[types.Part(text=text)])


class Remembering(BaseAgent):
    """Says what its memory finds."""

    async def _run_async_impl(self, ctx: Any) -> AsyncIterator[Event]:
        asked = ctx.user_content.parts[0].text
        found = await ctx.memory_service.search_memory(app_name=ctx.app_name, user_id=ctx.user_id, query=asked)
        said = " ".join(entry.content.parts[0].text for entry in found.memories) or "Nothing."
        yield Event(author=self.name, invocation_id=ctx.invocation_id, content=content(said, "model"))


def test_an_agent_finds_what_was_said_to_the_same_user_and_app(shallow_folder: Path, settings: Settings) -> None:
    memory = AsyncMemory(settings=settings, model=shallow_folder)
    service, sessions = HinsMemoryService(memory, infer=False), InMemorySessionService()
    runner = Runner(agent=Remembering(name="agent"), app_name="app", session_service=sessions, memory_service=service)

    async def ask(user: str, text: str) -> str:
        session = await sessions.create_session(app_name="app", user_id=user)
        said = ""
        with service.turn() as turn:
            async for event in runner.run_async(user_id=user, session_id=session.id, new_message=content(text)):
                said = event.content.parts[0].text
            turn.answered(said)
        return said

    async def use() -> None:
        session = await sessions.create_session(app_name="app", user_id="ann")
        event = Event(author="user", content=content(FACT))
        await sessions.append_event(session, event)
        for _ in range(2):
            # A session is given again as it grows.
            await service.add_session_to_memory(session)
        entry = MemoryEntry(content=content("Bob grows it."))
        await service.add_memory(app_name="app", user_id="bob", memories=[entry])
        assert await ask("ann", QUESTION) == FACT
        assert await ask("bob", QUESTION) == "Bob grows it."
        (mine,) = (await service.search_memory(app_name="app", user_id="ann", query="cello")).memories
        assert (await service.search_memory(app_name="other", user_id="ann", query="cello")).memories == []
        await service.delete_memory(app_name="app", user_id="bob", memory_id=mine.id)
        assert (await memory.get(mine.id))["memory"] == FACT
        await service.delete_memory(app_name="app", user_id="ann", memory_id=mine.id)
        assert await memory.get(mine.id) is None

    asyncio.run(use())
    memory.close()
    assert flush_all()
    logs = {log.scope.owner: log for log in LogReader(open_database(settings.database_url)).scope_logs()}
    ann, bob = (logs[Scope(user=user, agent="app")] for user in ("ann", "bob"))
    assert [answer.text for answer in ann.answers] == [FACT]
    assert ann.deleted == 1
    assert [one.text for one in bob.memories] == ["Bob grows it."]
