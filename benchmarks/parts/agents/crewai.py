"""The packaged conversations in CrewAI's memory."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

# CrewAI traces what runs first on a machine, and waits five seconds at each call outside of a crew for a span of one.
os.environ.setdefault("CREWAI_TRACING_ENABLED", "false")

from crewai import LLM
from crewai.memory.unified_memory import Memory
from hins_adapter_crewai import HinsEmbedder

import hins_memory
from hins_memory.config import Settings
from hins_memory.data.sample_conversations import SampleConversation

__all__ = ["CrewAIPlayer"]


class CrewAIPlayer:
    """One `Memory` on LanceDB; a conversation is a source and a scope. No language model is asked.

    Args:
        settings: the project.
        base: the encoder that the memory begins with, as `HinsEmbedder` takes it.
        limit: how many memories a search returns.
    """

    name = "crewai"

    def __init__(self, settings: Settings, base: str | Path, limit: int = 20) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="hins-crewai-")
        memory = Memory(
            llm=LLM(model="openai/none", api_key="unused", base_url="http://127.0.0.1:9/v1"),
            embedder=HinsEmbedder(base),
            storage=self._folder.name,
            # What is alike would be merged by the language model.
            consolidation_threshold=1.0,
            exploration_budget=0,
        )
        #: what the pipeline swaps
        self.memory: Any = hins_memory.attach(memory, settings=settings)
        self._limit = limit

    def add(self, conversation: SampleConversation) -> None:
        """Store every turn of a conversation, all of the same importance."""
        for turn in conversation.turns:
            self.memory.remember(
                f"{turn.speaker}: {turn.text}",
                categories=[],
                importance=0.5,
                metadata={"turn": turn.id},
                **_owner(conversation),
            )

    def search(self, conversation: SampleConversation, query: str) -> list[str]:
        """Return the ids of the turns that a search finds, best first."""
        found = self.memory.recall(query, limit=self._limit, depth="shallow", **_owner(conversation))
        return [match.record.metadata["turn"] for match in found]

    def ask(self, conversation: SampleConversation) -> None:
        """Ask every question of a conversation, and answer it."""
        for asked in conversation.questions:
            with self.memory.hins.turn() as turn:
                self.search(conversation, asked.question)
                turn.answered(asked.answer)


def _owner(conversation: SampleConversation) -> dict[str, str]:
    return {"scope": f"/conversations/{conversation.id}", "source": conversation.id}
