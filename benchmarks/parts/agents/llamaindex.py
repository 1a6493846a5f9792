"""The packaged conversations in a LlamaIndex memory block, asked through its `Memory`."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import chromadb
from hins_adapter_llamaindex import HinsEmbedding
from llama_index.core.llms import ChatMessage
from llama_index.core.memory import Memory, VectorMemoryBlock
from llama_index.vector_stores.chroma import ChromaVectorStore

import hins_memory
from hins_memory.config import Settings
from hins_memory.data.sample_conversations import SampleConversation

__all__ = ["LlamaIndexPlayer"]

_STORED = re.compile(r"<message role='user'>.*?</message>", re.DOTALL)


class LlamaIndexPlayer:
    """A `Memory` for each conversation, all with one block on an embedded Chroma.

    Args:
        settings: the project.
        base: the encoder that the block begins with, as `HinsEmbedding` takes it.
        limit: how many memories a search returns.
    """

    name = "llamaindex"

    def __init__(self, settings: Settings, base: str | Path, limit: int = 20) -> None:
        client = chromadb.EphemeralClient(chromadb.Settings(anonymized_telemetry=False))
        store = ChromaVectorStore(chroma_collection=client.get_or_create_collection("memories"))
        block = VectorMemoryBlock(vector_store=store, embed_model=HinsEmbedding(base), similarity_top_k=limit)
        #: what the pipeline swaps
        self.memory: Any = hins_memory.attach(block, settings=settings)
        self._turns: dict[str, dict[str, str]] = {}

    def add(self, conversation: SampleConversation) -> None:
        """Store every turn of a conversation, each by itself: `Memory` would join those that it flushes together."""
        asyncio.run(self._put(conversation))

    async def _put(self, conversation: SampleConversation) -> None:
        turns = self._turns[conversation.id] = {}
        for turn in conversation.turns:
            text = f"{turn.speaker}: {turn.text}"
            turns[f"<message role='user'>{text}</message>"] = turn.id
            await self.memory.aput([ChatMessage(role="user", content=text)], session_id=conversation.id)

    def search(self, conversation: SampleConversation, query: str) -> list[str]:
        """Return the ids of the turns that a search finds, best first."""
        memory = Memory.from_defaults(session_id=conversation.id, memory_blocks=[self.memory])
        messages = asyncio.run(memory.aget(input=query))
        found = [stored for message in messages for stored in _STORED.findall(message.content or "")]
        turns = self._turns[conversation.id]
        return [turns[stored] for stored in found]

    def ask(self, conversation: SampleConversation) -> None:
        """Ask every question of a conversation, and answer it."""
        for asked in conversation.questions:
            with self.memory.hins.turn() as turn:
                self.search(conversation, asked.question)
                turn.answered(asked.answer)
