"""An agent of Microsoft Agent Framework with a Mem0 memory that records."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

pytest.importorskip("agent_framework_openai", reason="needs agent-framework-openai")
pytest.importorskip("mem0", reason="needs mem0ai")

from agent_framework import Agent, AgentSession
from agent_framework_openai import OpenAIChatCompletionClient
from hins_adapter_agent_framework import HinsContextProvider
from hins_adapter_mem0 import AsyncMemory, Memory
from llm_server import LLMServer

from hins_memory.config import Settings
from hins_memory.database.engine import open_database
from hins_memory.errors import AgentError
from hins_memory.log.capture import flush_all
from hins_memory.log.reader import LogReader
from hins_memory.types import Scope

QUESTION = "Which instrument does Ann play?"


def session_of(user: str) -> AgentSession:
    session = AgentSession()
    session.state["user"] = user
    return session


@pytest.mark.slow
def test_an_agent_gets_its_users_memories_and_its_answer_is_recorded(shallow_folder: Path, settings: Settings) -> None:
    memory = AsyncMemory(settings=settings, model=shallow_folder)
    replies = {QUESTION: "The cello.", "Bob": "Noted.", "cello": "Nice."}

    async def use(server: LLMServer) -> None:
        client = OpenAIChatCompletionClient("loopback", api_key="none", base_url=server.base_url)
        provider = HinsContextProvider(memory, lambda session: session.state["user"], application="app", infer=False)
        agent = Agent(client, context_providers=[provider])
        await agent.run("Ann plays the cello in an orchestra.", session=session_of("ann"))
        await agent.run("Bob grows tomatoes.", session=session_of("bob"))
        assert (await agent.run(QUESTION, session=session_of("ann"))).text == "The cello."
        await agent.run("Of nobody.", session=session_of(""))

    with LLMServer(replies) as server:
        asyncio.run(use(server))
        prompts = [str(request["messages"]) for request in server.requests]
    assert "Ann plays the cello" in prompts[2]
    assert "tomatoes" not in prompts[2]
    memory.close()
    assert flush_all()
    logs = {log.scope.owner: log for log in LogReader(open_database(settings.database_url)).scope_logs()}
    assert set(logs) == {Scope(user="ann", agent="app"), Scope(user="bob", agent="app")}
    ann = logs[Scope(user="ann", agent="app")]
    assert [item.query for item in ann.retrievals] == ["Ann plays the cello in an orchestra.", QUESTION]
    answers = {answer.retrieval_id: answer.text for answer in ann.answers}
    assert answers == {ann.retrievals[0].id: "Nice.", ann.retrievals[1].id: "The cello."}


def test_another_memory_is_refused_with_what_to_give(shallow_folder: Path, settings: Settings) -> None:
    with pytest.raises(AgentError, match="not attached"):
        HinsContextProvider(object(), "ann")
    with Memory(settings=settings, model=shallow_folder) as memory, pytest.raises(AgentError, match="not awaited"):
        HinsContextProvider(memory, "ann")
