"""Several processes on one store: all follow a swap within a second, and nothing of any is lost or mixed."""

from __future__ import annotations

import time
from typing import Any

import pytest
from child_process import Child, children
from store_child import work
from store_world import ANN, BATCH, SERVERS, agent, assert_in_one_space, fill, rows, text_of

from hins_memory.errors import AgentError, LogError, SwapError
from hins_memory.registry.registry import Registry
from hins_memory.swapping import retire_agent, rollback_agent, swap_agent

pytestmark = pytest.mark.slow

every_server = pytest.mark.parametrize("world", SERVERS, indirect=True)


def _swap(world: Any, memory: Any, version: Any) -> float:
    """Swap and return when the flip was recorded, at the latest."""
    swap_agent(agent(memory), version.id, world.load(version.id), Registry(world.settings), batch_size=BATCH)
    return time.time()


def _served_late(seen: list[tuple[str, float]], version: str, flipped: float, until: float) -> list[float]:
    """Return how long after the flip operations began that another version than this one served."""
    return [started - flipped for known, started in seen if known != version and flipped + 1 < started < until]


@every_server
def test_other_processes_follow_and_nothing_is_lost_or_mixed(world: Any, tiny_version: Any) -> None:
    memory = world.open()
    fill(memory, 40)
    before = [rows(index) for index in agent(memory).live_indexes()]
    stock = agent(memory).encoder_version
    with children(Child(work, world, "bob"), Child(work, world, "eva")) as workers:
        assert [worker.read() for worker in workers] == [stock, stock]
        swapped = _swap(world, memory, tiny_version)
        assert [worker.read() for worker in workers] == [tiny_version.id, tiny_version.id]
        back = time.time()
        rollback_agent(agent(memory), Registry(world.settings), world.load, batch_size=BATCH)
        rolled_back = time.time()
        assert [worker.read() for worker in workers] == [stock, stock]
        for worker in workers:
            worker.tell("end")
        results = [worker.read() for worker in workers]
        for worker in workers:
            worker.wait()
    for result in results:
        assert result["failures"] == []
        assert _served_late(result["seen"], tiny_version.id, swapped, back) == []
        assert _served_late(result["seen"], stock, rolled_back, float("inf")) == []
    now = rows(agent(memory).live_indexes()[0])
    assert {id_: payload for id_, payload in now.items() if id_ in before[0]} == before[0]
    for name, result in zip(("bob", "eva"), results, strict=True):
        found = memory.get_all(filters={"user_id": name}, top_k=10_000)["results"]
        assert {item["id"]: item["memory"] for item in found} == result["alive"]
        assert len(result["alive"]) > 5
    assert len(now) == 40 + sum(len(result["alive"]) for result in results)
    assert_in_one_space(memory)
    assert len(retire_agent(agent(memory), Registry(world.settings))) == 2


def _two(world: Any) -> tuple[Any, Any]:
    """Two agents of the same store that know nothing of each other, as in two processes, and their memories."""
    from hins_adapter_mem0 import agent as module

    first = world.open()
    known = dict(module.AGENTS._agents)
    module.AGENTS._agents.clear()
    second = world.open()
    module.AGENTS._agents.update(known)
    assert agent(first) is not agent(second)
    return first, second


@every_server
def test_a_write_of_another_process_reaches_what_is_being_built(world: Any, tiny_version: Any) -> None:
    ours, theirs = _two(world)
    ids = fill(ours, 12)
    done = []

    def progress(what: str, *_: int) -> None:
        # Behind what was copied already: only the other process can bring these over.
        if what == "verify entities" and not done:
            done.extend(theirs.add("Eva found a kite.", user_id="eva", infer=False)["results"])
            theirs.update(ids[0], "Ann sold her cello.")
            theirs.delete(ids[1])

    swap_agent(agent(ours), tiny_version.id, world.load(tiny_version.id), Registry(world.settings), progress=progress)
    assert done
    assert ours.get(done[0]["id"])["memory"] == "Eva found a kite."
    assert ours.get(ids[0])["memory"] == "Ann sold her cello."
    assert ours.get(ids[1]) is None
    # Whether they have noticed the flip by now or not.
    late = theirs.add("Eva lost it again.", user_id="eva", infer=False)["results"][0]["id"]
    assert ours.get(late)["memory"] == "Eva lost it again."
    assert_in_one_space(ours)


@every_server
def test_an_operation_across_a_flip_of_another_process_is_not_lost(world: Any, tiny_version: Any) -> None:
    ours, theirs = _two(world)
    fill(ours, 6)
    with agent(theirs).pin() as binding:
        assert binding.version != tiny_version.id
        _swap(world, ours, tiny_version)
        late = theirs.add("Eva found a kite.", user_id="eva", infer=False)["results"][0]["id"]
        # It ends in the space that it began in.
        vector = binding.embedding.embed(text_of(0), "search")
        assert theirs.vector_store.search(query="", vectors=vector, top_k=1)[0].score > 0.99
    assert ours.get(late)["memory"] == "Eva found a kite."
    assert theirs.search("Eva found a kite.", filters={"user_id": "eva"})["results"][0]["id"] == late
    assert agent(theirs).encoder_version == tiny_version.id
    assert_in_one_space(ours)


@every_server
def test_a_process_that_cannot_write_to_the_new_index_stops_the_swap(world: Any, tiny_version: Any) -> None:
    ours, theirs = _two(world)
    ids = fill(ours, 6)
    broken = agent(theirs).encoders
    broken.by_version, by_version = (
        lambda version: (_ for _ in ()).throw(AgentError("no such folder")),
        (broken.by_version),
    )

    def progress(what: str, *_: int) -> None:
        if what == "verify memories":
            theirs.update(ids[0], "Ann sold her cello.")

    registry = Registry(world.settings)
    with pytest.raises(SwapError, match="gave the swap up"):
        swap_agent(agent(ours), tiny_version.id, world.load(tiny_version.id), registry, progress=progress)
    assert registry.live_index(agent(ours).store_id).version == agent(ours).encoder_version != tiny_version.id
    assert ours.get(ids[0])["memory"] == "Ann sold her cello."
    broken.by_version = by_version
    _swap(world, ours, tiny_version)
    assert ours.get(ids[0])["memory"] == "Ann sold her cello."
    broken.by_version = lambda version: (_ for _ in ()).throw(AgentError("no such folder"))
    # What serves cannot be opened: an error, and not an answer from an index that is not kept up any more.
    agent(theirs)._refreshed_at = float("-inf")
    with pytest.raises(AgentError, match="no such folder"):
        theirs.search(text_of(0), filters=ANN)
    broken.by_version = by_version
    assert theirs.search("Ann sold her cello.", filters=ANN)["results"][0]["id"] == ids[0]


@every_server
def test_a_log_that_cannot_be_read_stops_no_operation(world: Any, tiny_version: Any) -> None:
    ours, theirs = _two(world)
    ids = fill(ours, 4)
    registry = agent(theirs).encoders.registry
    registry.generations = lambda key: (_ for _ in ()).throw(LogError("the log is away"))
    agent(theirs)._refreshed_at = float("-inf")
    assert theirs.search(text_of(0), filters=ANN, threshold=0)["results"][0]["id"] == ids[0]
    _swap(world, ours, tiny_version)
    theirs.update(ids[0], "Ann sold her cello.")
    del registry.generations
    theirs.add("Eva found a kite.", user_id="eva", infer=False)
    assert ours.get(ids[0])["memory"] == "Ann sold her cello."
    assert_in_one_space(ours)


@every_server
def test_a_process_that_only_records_follows_too(world: Any, tmp_path: Any, monkeypatch: Any) -> None:
    """It embeds with Mem0's own embedder, until another process re-embeds the store with hins."""
    monkeypatch.setenv("HINS_BASE", "stock")
    from hins_adapter_mem0 import Memory

    import hins_memory
    from hins_memory.encoders.encoder import resolve_model

    embedder = {"provider": "huggingface", "config": {"model": resolve_model("stock"), "embedding_dims": 384}}
    vector_store = {"provider": world.vector_store["provider"], "config": dict(world.vector_store["config"])}
    if world.name == "pgvector":
        vector_store["config"]["embedding_model_dims"] = 384
    config = {"embedder": embedder, "vector_store": vector_store, "llm": _UNREACHED}
    recording = Memory({**config, "history_db_path": str(tmp_path / "1.db")}, embedder=None, settings=world.settings)
    (item,) = recording.add("Eva found a kite.", user_id="eva", infer=False)["results"]
    assert agent(recording).encoder_version == ""
    known = dict(_module().AGENTS._agents)
    _module().AGENTS._agents.clear()
    swapping = _plain(config, tmp_path)
    hins_memory.attach(swapping, embedder="hins", reembed=True, settings=world.settings)
    _module().AGENTS._agents.update(known)
    late = recording.add("Eva lost it again.", user_id="eva", infer=False)["results"][0]["id"]
    assert swapping.get(item["id"])["memory"] == "Eva found a kite."
    assert swapping.get(late)["memory"] == "Eva lost it again."
    assert agent(recording).encoder_version == agent(swapping).encoder_version == "all-MiniLM-L6-v2@53aa5117"
    assert_in_one_space(swapping)
    hins_memory.detach(swapping)
    recording.close()


_UNREACHED = {"provider": "openai", "config": {"api_key": "unused", "openai_base_url": "http://127.0.0.1:9/v1"}}


def _module() -> Any:
    from hins_adapter_mem0 import agent as module

    return module


def _plain(config: Any, folder: Any) -> Any:
    import mem0
    from mem0.configs.base import MemoryConfig

    return mem0.Memory(MemoryConfig(**config, history_db_path=str(folder / "2.db")))
