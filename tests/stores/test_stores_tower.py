"""A swap to a tower and back on every store: nothing is written, and no store has to list what it holds."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from store_world import ANN, STORES, StoreWorld, agent, fill, text_of
from towers import write_tower

from hins_memory.database.engine import open_database
from hins_memory.encoders.encoder import Encoder
from hins_memory.errors import SwapError
from hins_memory.log.reader import LogReader
from hins_memory.registry.loader import EncoderSource
from hins_memory.registry.registry import Registry
from hins_memory.swapping import plan_swap, rollback_agent, swap_agent

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("shallow_base")]


@pytest.fixture(scope="module")
def tower(shallow_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tower beside the encoder that the module's stores begin with; each test adds it to a project of its own."""
    folder = tmp_path_factory.mktemp("towers") / "tower"
    write_tower(shallow_base, folder)
    return folder


def _added(tower: Path, registry: Registry, base: Encoder, folder: Path) -> Any:
    shutil.copytree(tower, folder)
    return registry.add(folder, {"mode": "tower", "base": base.version, "document_space": base.space})


def _stored(index: Any) -> dict[str, Any]:
    """Every row of a collection: its payload and its vector."""
    records = [record for page in index.pages(100) for record in page]
    vectors = index.vectors([record.id for record in records])
    assert vectors.keys() == {record.id for record in records}
    return {one.id: (dict(one.payload), vectors[one.id].tolist()) for one in records}


def _same(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    """Whether rows are equal; embedded Qdrant rounds the last bit of its vectors anew when it searches."""
    return ours.keys() == theirs.keys() and all(
        payload == theirs[id_][0] and np.allclose(vector, theirs[id_][1], rtol=0, atol=1e-7)
        for id_, (payload, vector) in ours.items()
    )


@contextlib.contextmanager
def _unread(agent_: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let every reading of a whole store fail, and every writing of a vector."""
    with monkeypatch.context() as patch:
        for index in agent_.live_indexes():
            patch.setattr(type(index), "pages", lambda *_: pytest.fail("the store is paged through"))
            patch.setattr(type(index), "upsert", lambda *_: pytest.fail("a vector is written"))
        yield


@pytest.mark.parametrize("world", [*STORES, "milvus", "redis", "supabase"], indirect=True)
def test_queries_change_and_no_stored_vector_is_touched(
    world: Any, tower: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = world.open()
    fill(memory, 20)
    live, base = agent(memory), memory.embedding_model.encoder
    registry = Registry(world.settings)
    version = _added(tower, registry, base, tmp_path / "version")
    load = EncoderSource(registry).by_version
    before = [_stored(index) for index in live.live_indexes()]
    assert [len(rows) for rows in before] == [20, 2]
    asked = np.asarray(memory.embedding_model.embed(text_of(3), "search"))
    with _unread(live, monkeypatch):
        assert plan_swap(live, load(version.id), registry).records == 0
        assert swap_agent(live, version.id, load(version.id), registry).indexes == ()
        assert float(asked @ memory.embedding_model.embed(text_of(3), "search")) < 0.999
        assert memory.search(text_of(3), filters=ANN, threshold=0)["results"]
    assert memory.embedding_model.encoder.version == version.id
    held = [_stored(index) for index in live.live_indexes()]
    assert all(_same(one, other) for one, other in zip(held, before, strict=True))
    (late,) = memory.add("Ann bought a kite.", user_id="ann", infer=False)["results"]
    held = [_stored(index) for index in live.live_indexes()]
    assert np.allclose(held[0][late["id"]][1], base.encode(["Ann bought a kite."])[0], atol=1e-5)
    with _unread(live, monkeypatch):
        assert rollback_agent(live, registry, load).indexes == ()
    assert memory.embedding_model.encoder.version == base.version
    after = [_stored(index) for index in live.live_indexes()]
    assert all(_same(one, other) for one, other in zip(after, held, strict=True))
    assert memory.search("Ann bought a kite.", filters=ANN)["results"][0]["id"] == late["id"]
    world.close()
    captured = next(iter(LogReader(open_database(world.settings.database_url)).scope_logs()))
    assert len(captured.memories) == 21


def test_a_store_that_lists_nothing_is_refused_a_deep_swap_and_gets_a_tower(
    settings: Any, tower: Path, shallow_base: Path, tmp_path: Path
) -> None:
    pytest.importorskip("langchain_community", reason="needs the package langchain-community")
    from langchain_core.embeddings import DeterministicFakeEmbedding
    from langchain_core.vectorstores import InMemoryVectorStore

    # Mem0 stores through it what LangChain's own object embeds, cannot list it, and opens no second collection.
    client = InMemoryVectorStore(DeterministicFakeEmbedding(size=Encoder.load(shallow_base).dim))
    store = {"provider": "langchain", "config": {"client": client, "collection_name": "notes"}}
    world = StoreWorld("langchain", store, settings, shallow_base, shared=False)
    memory = world.open()
    memory.add(text_of(0), user_id="ann", infer=False)
    live, base = agent(memory), memory.embedding_model.encoder
    registry = Registry(settings)
    load = EncoderSource(registry).by_version
    stock = Encoder.load()
    with pytest.raises(SwapError, match=r"lacks collections that can be opened by name.*--mode tower"):
        swap_agent(live, stock.version, stock, registry)
    version = _added(tower, registry, base, tmp_path / "version")
    assert swap_agent(live, version.id, load(version.id), registry).indexes == ()
    assert memory.embedding_model.encoder.version == version.id
    assert rollback_agent(live, registry, load).indexes == ()
    assert memory.embedding_model.encoder.version == base.version
    world.close()
