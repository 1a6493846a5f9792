"""How the contract suite uses LlamaIndex's memory block."""

from __future__ import annotations

import asyncio
import re
from typing import Any

from hins_adapter_llamaindex.plugin import plugin as llamaindex_plugin

from hins_memory.sdk import AgentTurn
from hins_memory.testing import AdapterDriver, Found, Place

_SAID = re.compile(r"<message role='user'>(.*?)</message>", re.DOTALL)


class LlamaIndexDriver(AdapterDriver):
    """A `VectorMemoryBlock` on a Chroma that is embedded, with an encoder that hins-memory knows nothing of."""

    plugin = llamaindex_plugin
    users = ("ann", "7", "ann/bob", "user=ann&tenant=b", "a%2Fb", "李🍵", "None")
    unnamed = ("", None)

    def make(self, place: Place) -> Any:
        import chromadb
        from llama_index.core.embeddings import BaseEmbedding
        from llama_index.core.memory import VectorMemoryBlock
        from llama_index.vector_stores.chroma import ChromaVectorStore

        from hins_memory.registry.loader import shared_encoder

        class Own(BaseEmbedding):
            def _get_text_embedding(self, text: str) -> list[float]:
                return shared_encoder(place.base).encode([text])[0].tolist()

            def _get_query_embedding(self, query: str) -> list[float]:
                return self._get_text_embedding(query)

            async def _aget_query_embedding(self, query: str) -> list[float]:
                return self._get_text_embedding(query)

        client = chromadb.PersistentClient(str(place.folder), chromadb.Settings(anonymized_telemetry=False))
        collection = client.get_or_create_collection("memories")
        return VectorMemoryBlock(vector_store=ChromaVectorStore(chroma_collection=collection), embed_model=Own())

    def said(self, text: str) -> str:
        found = _SAID.fullmatch(text)
        return found[1] if found else text

    def _rows(self, memory: Any) -> dict[str, str]:
        """Return the ids of what the block stored, by the texts."""
        agent = vars(memory).get("hins")
        collection = memory.vector_store.client if agent is None else agent.binding.index.collection
        rows = collection.get(include=["documents"])
        return dict(zip(map(self.said, rows["documents"]), rows["ids"], strict=True))

    def add(self, memory: Any, text: str, user: Any) -> str:
        return asyncio.run(self.add_async(memory, text, user))

    def search(self, memory: Any, query: str, user: Any, limit: int) -> Found:
        return asyncio.run(self.search_async(memory, query, user, limit))

    async def make_async(self, place: Place) -> Any:
        return self.make(place)

    async def add_async(self, memory: Any, text: str, user: Any) -> str:
        from llama_index.core.llms import ChatMessage

        await memory.aput([ChatMessage(role="user", content=text)], session_id=user)
        return self._rows(memory)[text]

    async def search_async(self, memory: Any, query: str, user: Any, limit: int) -> Found:
        from llama_index.core.llms import ChatMessage

        memory.similarity_top_k = limit
        asked = ChatMessage(role="user", content=f"<message role='user'>{query}</message>")
        found = await memory.aget([asked], session_id=user)
        rows = self._rows(memory)
        return [(rows[text], text) for text in _SAID.findall(found)]

    def turn(self, memory: Any) -> AgentTurn:
        turn: AgentTurn = memory.hins.turn()
        return turn

    def close(self, memory: Any) -> None:
        from chromadb.api.client import SharedSystemClient

        system = memory.vector_store.client._client._system
        self.plugin.hins_detach(memory)
        system.stop()
        SharedSystemClient.clear_system_cache()
