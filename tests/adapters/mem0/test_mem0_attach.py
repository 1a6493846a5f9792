"""Attaching to a memory that exists: it captures, embeds with hins if asked, and can be restored exactly."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import mem0
import pytest
from hins_adapter_mem0 import Memory, attach, detach
from hins_adapter_mem0.plugin import plugin
from mem0_world import ANN, FACTS, fill, logged, own_async_memory, own_memory, plain, texts

from hins_memory.config import Settings
from hins_memory.errors import AgentError, ConfigError
from hins_memory.registry.registry import EncoderVersion


@pytest.mark.slow
def test_attach_captures_and_detach_restores(settings: Settings, tmp_path: Path) -> None:
    memory = own_memory(tmp_path)
    ids = fill(memory)
    before, original = dict(vars(memory)), type(memory)
    expected = plain(memory.search("cello", filters=ANN))
    assert attach(memory, settings=settings) is memory
    assert isinstance(memory, mem0.Memory)
    found = memory.search("cello", filters=ANN)
    assert plain(found) == expected
    memory.answered(found["retrieval_id"], "the cello")
    memory.update(ids[0], "Ann plays the viola")
    assert detach(memory) is memory
    assert type(memory) is original
    assert vars(memory) == before
    assert all(vars(memory)[name] is value for name, value in before.items())
    memory.search("not recorded", filters=ANN)
    (log,) = logged(settings)
    (retrieval,) = log.retrievals
    assert retrieval.encoder_version == ""
    assert [answer.text for answer in log.answers] == ["the cello"]
    assert [stored.text for stored in log.memories] == ["Ann plays the viola"]


def test_attach_to_an_async_memory(settings: Settings, tmp_path: Path) -> None:
    memory = own_async_memory(tmp_path)

    async def use() -> Any:
        attach(memory, settings=settings)
        await memory.add(FACTS[0], user_id="ann", infer=False)
        found = await memory.search("cello", filters=ANN)
        await memory.update(found["results"][0]["id"], "Ann plays the viola")
        await memory.delete(found["results"][0]["id"])
        await memory.delete_all(user_id="ann")
        return found

    found = asyncio.run(use())
    detach(memory)
    assert type(memory) is mem0.AsyncMemory
    (log,) = logged(settings)
    assert log.retrievals[0].id == found["retrieval_id"]
    assert (len(log.turns), log.deleted) == (1, 1)


@pytest.mark.slow
def test_attach_with_hins_uses_collections_of_its_own(
    settings: Settings, tmp_path: Path, tiny_folder: Path, tiny_version: EncoderVersion
) -> None:
    memory = own_memory(tmp_path)
    attach(memory, embedder="hins", settings=settings, model=tiny_folder)
    assert memory.vector_store.embedding_model_dims == 32
    ids = fill(memory)
    assert texts(memory.search(FACTS[0], filters=ANN))[0] == FACTS[0]
    detach(memory)
    assert memory.vector_store.embedding_model_dims == 384
    assert memory.get_all(filters=ANN)["results"] == []
    # Attached again, plainly even, it finds what it stored: the registry knows whose store it is.
    attach(memory, settings=settings, model=tiny_folder)
    assert memory.get(ids[0])["memory"] == FACTS[0]
    assert memory.search(FACTS[1], filters=ANN)["results"][0]["id"] == ids[1]


def test_attach_with_hins_refuses_vectors_of_another_encoder(settings: Settings, tmp_path: Path) -> None:
    memory = own_memory(tmp_path)
    fill(memory)
    before = dict(vars(memory))
    with pytest.raises(AgentError, match=rf"holds {len(FACTS)} memories .*reembed=True"):
        attach(memory, embedder="hins", settings=settings)
    assert type(memory) is mem0.Memory
    assert vars(memory) == before


@pytest.mark.slow
def test_attach_and_reembed(settings: Settings, tmp_path: Path, tiny_folder: Path) -> None:
    memory = own_memory(tmp_path)
    ids = fill(memory)
    memory._upsert_entity("Oslo", "PLACE", ids[1], ANN)
    attach(memory, embedder="hins", reembed=True, settings=settings, model=tiny_folder)
    assert memory.vector_store.embedding_model_dims == 32
    assert memory.search(FACTS[2], filters=ANN)["results"][0]["id"] == ids[2]
    (entity,) = memory.entity_store.list(filters=ANN)[0]
    assert entity.payload["linked_memory_ids"] == [ids[1]]
    # A process that starts later attaches as before and is served with the new encoder.
    memory.close()
    memory.__dict__["vector_store"].client.close()
    later = attach(own_memory(tmp_path), settings=settings, model=tiny_folder)
    assert later.search(FACTS[3], filters=ANN)["results"][0]["id"] == ids[3]
    assert later.vector_store.embedding_model_dims == 32


def test_attaching_twice_replaces_the_options(settings: Settings, tmp_path: Path) -> None:
    memory = own_memory(tmp_path)
    attach(memory, settings=settings)
    attach(memory, settings=settings, capture=False)
    fill(memory)
    detach(memory)
    assert type(memory) is mem0.Memory
    assert logged(settings) == []


def test_subclasses_keep_their_own_methods(settings: Settings, tmp_path: Path) -> None:
    class Mine(mem0.Memory):
        def search(self, *args: Any, **kwargs: Any) -> Any:
            return {**super().search(*args, **kwargs), "mine": True}

    memory = own_memory(tmp_path)
    memory.__class__ = Mine
    attach(memory, settings=settings)
    found = memory.search("cello", filters=ANN)
    assert found["mine"]
    assert found["retrieval_id"]
    assert type(detach(memory)) is Mine


@pytest.mark.slow
def test_what_cannot_be_attached_or_detached(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(AgentError, match="not a Mem0 memory"):
        attach(object())
    with pytest.raises(ConfigError, match="openai"):
        attach(own_memory(tmp_path / "a"), embedder="openai")
    with pytest.raises(AgentError, match="not attached"):
        detach(own_memory(tmp_path / "b"))
    ours = Memory(settings=settings)
    assert attach(ours) is ours
    with pytest.raises(AgentError, match="nothing to go back to"):
        detach(ours)


def test_the_hooks(settings: Settings, tmp_path: Path) -> None:
    assert plugin.hins_attach(object(), {}) is None
    assert plugin.hins_detach(object()) is None
    assert plugin.hins_agent(object()) is None
    memory = own_memory(tmp_path)
    assert plugin.hins_agent(memory) is None
    assert plugin.hins_attach(memory, {"settings": settings, "capture": False}) is memory
    agent = plugin.hins_agent(memory)
    assert agent is not None
    assert agent.encoder_version == ""
    assert agent.store_id == f"mem0:qdrant:{tmp_path / 'qdrant'}:mem0"
    assert [index.kind for index in agent.live_indexes()] == ["memories", "entities"]
    assert plugin.hins_detach(memory) is memory
    with pytest.raises(ConfigError, match="embeder"):
        plugin.hins_attach(memory, {"embeder": "hins"})


@pytest.mark.slow
def test_discovery_needs_neither_mem0_nor_torch() -> None:
    code = (
        "import sys\n"
        "class Hidden:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('mem0', 'torch', 'sentence_transformers'):\n"
        "            raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Hidden())\n"
        "from hins_memory.plugins.manager import get_plugin_manager, broken_plugins\n"
        "from hins_memory.config import Settings\n"
        "hook = get_plugin_manager().hook\n"
        "assert 'mem0' in sum(hook.hins_agent_names(), []), broken_plugins()\n"
        "assert hook.hins_attach(memory=object(), options={}) is None\n"
        "hook.hins_open_agent(name='mem0', settings=Settings(), config=None)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert 'AgentError: mem0 is not installed. Install it with: pip install "hins-memory[mem0]"' in run.stderr
