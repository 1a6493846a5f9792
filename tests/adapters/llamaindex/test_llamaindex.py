"""What the contract suite does not see of LlamaIndex: its `Memory`, and stores of other packages."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("llama_index.core", reason="needs the extra llamaindex")

from hins_adapter_llamaindex.plugin import plugin
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.llms import ChatMessage
from llama_index.core.memory import Memory, VectorMemoryBlock

from hins_memory.config import Settings
from hins_memory.database.engine import open_database
from hins_memory.encoders.encoder import Encoder
from hins_memory.errors import AgentError
from hins_memory.log.capture import flush_all
from hins_memory.log.reader import LogReader
from hins_memory.registry.registry import EncoderVersion, Registry
from hins_memory.swapping import swap_agent


def block_on(store: Any, folder: Path, settings: Settings) -> Any:
    from hins_adapter_llamaindex import HinsEmbedding

    block = VectorMemoryBlock(vector_store=store, embed_model=HinsEmbedding(folder), similarity_top_k=5)
    return plugin.hins_attach(block, {"settings": settings})


def test_what_a_memory_flushes_and_finds_is_recorded_by_session(tiny_folder: Path, settings: Settings) -> None:
    chroma = pytest.importorskip("llama_index.vector_stores.chroma", reason="needs the extra llamaindex")
    import chromadb

    client = chromadb.EphemeralClient(chromadb.Settings(anonymized_telemetry=False))
    store = chroma.ChromaVectorStore(chroma_collection=client.get_or_create_collection("sessions"))
    block = block_on(store, tiny_folder, settings)

    async def chat(session: str, text: str) -> list[str]:
        memory = Memory.from_defaults(session_id=session, memory_blocks=[block], token_limit=40, token_flush_size=10)
        for number in range(4):
            await memory.aput(ChatMessage(role="user", content=f"{text} {number}. " + "So it is. " * 4))
        return [message.content or "" for message in await memory.aget(input=text)]

    with block.hins.turn() as turn:
        found = asyncio.run(chat("ann", "Ann plays the cello"))
        turn.answered("The cello.")
    assert "Ann plays the cello 0" in "".join(found)
    assert "Ann" not in "".join(asyncio.run(chat("bob", "Bob grows tomatoes")))
    plugin.hins_detach(block)
    assert flush_all()
    logs = {log.scope.user: log for log in LogReader(open_database(settings.database_url)).scope_logs()}
    assert set(logs) == {"ann", "bob"}
    for user, log in logs.items():
        (retrieval,) = log.retrievals
        texts = {memory.id: memory.text for memory in log.memories}
        assert retrieval.results
        assert {one.memory_id: one.text for one in retrieval.results}.items() <= texts.items()
        assert all(user.capitalize() in text for text in texts.values())
    assert [answer.text for answer in logs["ann"].answers] == ["The cello."]


@pytest.mark.slow
def test_any_other_store_gets_a_tower_and_is_not_reembedded(
    tiny_version: EncoderVersion, tower_version: EncoderVersion, settings: Settings
) -> None:
    qdrant = pytest.importorskip("llama_index.vector_stores.qdrant", reason="needs llama-index-vector-stores-qdrant")
    from qdrant_client import AsyncQdrantClient

    store, another = (qdrant.QdrantVectorStore(name, aclient=AsyncQdrantClient(":memory:")) for name in ("one", "two"))
    block, registry = block_on(store, tiny_version.path, settings), Registry(settings)
    agent = plugin.hins_agent(block)
    assert agent is not None

    async def use() -> str:
        await block.aput([ChatMessage(role="user", content="Ann plays the cello.")], session_id="ann")
        return await block.aget([ChatMessage(role="user", content="Ann plays the cello.")], session_id="ann")

    swap_agent(agent, tower_version.id, Encoder.load(tower_version.path), registry)
    assert agent.encoder_version == tower_version.id
    assert "cello" in asyncio.run(use())
    plugin.hins_detach(block)
    other = VectorMemoryBlock(vector_store=another, embed_model=MockEmbedding(embed_dim=8))
    with pytest.raises(AgentError, match="--mode tower"):
        plugin.hins_attach(other, {"settings": settings, "embedder": "hins"})
