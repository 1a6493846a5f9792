"""Stores that fail now and then, cannot be swapped at all, or were left half written."""

from __future__ import annotations

import os
import threading
from copy import copy
from pathlib import Path
from typing import Any

import pytest
from hins_adapter_mem0.faiss_files import finish_faiss
from hins_adapter_mem0.index import StoreIndex
from hins_adapter_mem0.indexes import open_index
from hins_adapter_mem0.stores import GuardedStore, StoreOpener
from mem0.configs.vector_stores.faiss import FAISSConfig
from mem0.vector_stores.faiss import FAISS
from qdrant_client import QdrantClient
from store_world import ANN, agent, assert_in_one_space, fill, rows

from hins_memory.errors import AgentError, SwapError
from hins_memory.plugins.protocols import Index
from hins_memory.registry.registry import Registry
from hins_memory.swapping import plan_swap, swap_agent

pytestmark = pytest.mark.slow


class FlakyClient(QdrantClient):
    """A real Qdrant client, every tenth call of which fails while `armed`."""

    armed = False
    calls = 0

    def _fail(self) -> None:
        self.calls += 1
        if self.armed and self.calls % 10 == 0:
            raise ConnectionError("the store is busy")

    def scroll(self, *args: Any, **kwargs: Any) -> Any:
        self._fail()
        return super().scroll(*args, **kwargs)

    def retrieve(self, *args: Any, **kwargs: Any) -> Any:
        self._fail()
        return super().retrieve(*args, **kwargs)

    def upsert(self, *args: Any, **kwargs: Any) -> Any:
        self._fail()
        return super().upsert(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> Any:
        self._fail()
        return super().delete(*args, **kwargs)

    def count(self, *args: Any, **kwargs: Any) -> Any:
        self._fail()
        return super().count(*args, **kwargs)


@pytest.mark.parametrize("world", ["qdrant"], indirect=True)
def test_a_store_whose_every_tenth_call_fails_is_swapped_all_the_same(
    world: Any, tmp_path: Path, tiny_version: Any
) -> None:
    client = FlakyClient(path=str(tmp_path / "flaky"))
    world.vector_store["config"] = {"collection_name": "flaky", "client": client}
    memory = world.open()
    fill(memory, 60)
    before = [rows(index) for index in agent(memory).live_indexes()]
    client.armed, client.calls = True, 0
    swap_agent(agent(memory), tiny_version.id, world.load(tiny_version.id), Registry(world.settings), batch_size=4)
    assert client.calls > 60
    client.armed = False
    assert [rows(index) for index in agent(memory).live_indexes()] == before
    assert_in_one_space(memory)
    client.close()


class Elsewhere(FAISS):
    """A real store of Mem0's, under the name of one whose `list` ends after some thousands."""


Elsewhere.__module__ = "mem0.vector_stores.valkey"


def test_a_store_that_cannot_list_everything_says_what_it_lacks(tmp_path: Path) -> None:
    store = Elsewhere(collection_name="c", path=str(tmp_path / "c"), embedding_model_dims=4)
    index = open_index(GuardedStore(store, None), "memories")
    assert isinstance(index, Index)
    assert type(index) is StoreIndex
    assert index.is_empty()
    with pytest.raises(AgentError, match=r"'valkey' store cannot be re-embedded.*lacks a complete list"):
        index.count()
    with pytest.raises(AgentError, match="Use qdrant, pgvector"):
        next(index.pages(10))


def test_a_store_without_named_collections_says_so() -> None:
    class Nameless(FAISSConfig):
        pass

    config = Nameless(path="x")
    del config.__dict__["collection_name"]
    with pytest.raises(AgentError, match="no collection_name"):
        StoreOpener("faiss", config)


@pytest.mark.parametrize("world", ["qdrant"], indirect=True)
def test_what_a_store_lacks_reaches_whoever_asks_for_the_swap(
    world: Any, tiny_version: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = world.open()
    fill(memory, 3)
    live = [StoreIndex(index.store, index.kind) for index in agent(memory).live_indexes()]
    monkeypatch.setattr("hins_adapter_mem0.index.provider_of", lambda store: "valkey")
    monkeypatch.setattr(agent(memory), "live_indexes", lambda: live)
    encoder = world.load(tiny_version.id)
    with pytest.raises(AgentError, match="lacks a complete list"):
        plan_swap(agent(memory), encoder, Registry(world.settings))
    with pytest.raises(SwapError, match=r"lacks a complete list.*Use qdrant, pgvector"):
        swap_agent(agent(memory), tiny_version.id, encoder, Registry(world.settings))


@pytest.mark.parametrize("world", ["faiss"], indirect=True)
def test_files_of_faiss_that_do_not_belong_together_are_reported(world: Any) -> None:
    memory = world.open()
    fill(memory, 4)
    world.close()
    folder = Path(world.vector_store["config"]["path"])
    (listed,) = (path for path in folder.glob("*.json") if "entities" not in path.name)
    whole = listed.read_bytes()
    listed.write_bytes(whole[:-20])
    with pytest.raises(AgentError, match="is damaged"):
        world.open()
    listed.write_bytes(whole)
    memory = world.open()
    assert len(memory.get_all(filters=ANN)["results"]) == 4


@pytest.mark.parametrize("world", ["faiss"], indirect=True)
def test_a_save_of_faiss_that_was_killed_is_finished_or_forgotten(world: Any) -> None:
    memory = world.open()
    fill(memory, 3)
    world.close()
    folder = Path(world.vector_store["config"]["path"])
    name = world.vector_store["config"]["collection_name"]
    old = {ending: (folder / f"{name}{ending}").read_bytes() for ending in (".faiss", ".json")}
    memory = world.open()
    memory.add("Dai found a kite.", user_id="ann", infer=False)
    world.close()
    new = {ending: (folder / f"{name}{ending}").read_bytes() for ending in old}
    # Killed before the new files were complete: the old ones count.
    (folder / f"{name}.faiss").write_bytes(old[".faiss"])
    (folder / f"{name}.json").write_bytes(old[".json"])
    (folder / f"{name}.faiss.new").write_bytes(new[".faiss"][:100])
    memory = world.open()
    assert len(memory.get_all(filters=ANN)["results"]) == 3
    world.close()
    # Killed between the two: the new ones count.
    (folder / f"{name}.faiss").write_bytes(new[".faiss"])
    (folder / f"{name}.faiss.new").unlink()
    (folder / f"{name}.json.new").write_bytes(new[".json"])
    (folder / f"{name}.ready").touch()
    memory = world.open()
    assert len(memory.get_all(filters=ANN)["results"]) == 4
    assert not (folder / f"{name}.ready").exists()
    finish_faiss(str(folder), name)


@pytest.mark.parametrize("world", ["faiss"], indirect=True)
def test_a_save_of_faiss_that_fails_is_an_error_and_keeps_what_was(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = world.open()
    fill(memory, 3)
    (index, _) = agent(memory).live_indexes()
    before = rows(index)
    record = index.get(list(before)[:1])[0]

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", full)
        for write in (
            lambda: index.delete([record.id]),
            lambda: memory.add("Dai found a kite.", user_id="ann", infer=False),
            lambda: memory.update(record.id, "Another text."),
            lambda: index.store.reset(),
        ):
            with pytest.raises(OSError, match="No space"):
                write()
            assert rows(index) == before
    index.delete([record.id])
    assert index.count() == 2


@pytest.mark.parametrize("world", ["pgvector"], indirect=True)
def test_a_table_that_somebody_else_made_at_the_same_moment_is_used(world: Any) -> None:
    """PostgreSQL's CREATE TABLE IF NOT EXISTS fails when two run at once; mem0ai runs it at a table's first use."""
    memory = world.open()
    fill(memory, 3)
    encoder = memory.embedding_model.encoder
    for number in range(5):
        indexes = [
            open_index(agent(memory).opener.open(f"{world.name}_race{number}", encoder.dim), "memories")
            for _ in range(2)
        ]
        # Mem0's store object is kept by its name, and each of two processes has one of its own.
        indexes[1].store.raw = copy(indexes[0].store.raw)
        ready, counted = threading.Barrier(2), []

        def use(index: Any, ready: Any = ready, counted: Any = counted) -> None:
            ready.wait()
            counted.append(index.count())

        threads = [threading.Thread(target=use, args=(index,)) for index in indexes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert counted == [0, 0]
        indexes[0].drop()
