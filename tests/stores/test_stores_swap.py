"""The same suite over every store, through Mem0's own interface: the whole life of a store that is swapped."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from child_process import Child, children
from store_child import hold, swap_and_die
from store_world import ANN, BATCH, EMBEDDED, STORES, agent, assert_in_one_space, fill, rows, text_of
from waiting import until

from hins_memory.database.engine import open_database
from hins_memory.errors import AgentError
from hins_memory.log.reader import LogReader
from hins_memory.registry.registry import Registry
from hins_memory.swapping import Scale, plan_swap, retire_agent, rollback_agent, swap_agent

pytestmark = pytest.mark.slow

every_store = pytest.mark.parametrize("world", [*STORES, "milvus", "redis", "supabase"], indirect=True)


def _swap(world: Any, memory: Any, version: Any) -> Any:
    return swap_agent(agent(memory), version.id, world.load(version.id), Registry(world.settings), batch_size=BATCH)


class _Writer:
    """A thread that adds, updates and deletes until it is stopped; keeps what must be there afterwards."""

    def __init__(self, memory: Any) -> None:
        self.memory = memory
        self.alive: dict[str, str] = {}
        self.failures: list[BaseException] = []
        self.steps = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> _Writer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        number = 0
        try:
            while not self._stop.is_set():
                text = f"Bob wrote note number {number} about boats."
                (item,) = self.memory.add(text, user_id="bob", infer=False)["results"]
                if number % 3 == 1:
                    text += " Twice."
                    self.memory.update(item["id"], text)
                if number % 3 == 2:
                    self.memory.delete(item["id"])
                else:
                    self.alive[item["id"]] = text
                assert self.memory.search(text_of(0), filters=ANN, threshold=0)["results"][0]["memory"] == text_of(0)
                self.steps = number = number + 1
                time.sleep(0.02)
        except BaseException as error:
            self.failures.append(error)


@every_store
def test_the_whole_life_of_a_store(world: Any, tiny_version: Any) -> None:
    memory = world.open()
    ids = fill(memory, 30)
    stock = agent(memory).encoder_version
    before = [rows(index) for index in agent(memory).live_indexes()]
    assert [len(found) for found in before] == [30, 2]
    plan = plan_swap(agent(memory), world.load(tiny_version.id), scale=Scale(1e9))
    assert plan.records == 32
    # The index that the rate of writing was measured in is gone: a swap finds the store as it was.
    assert plan.projection is not None
    assert plan.projection.write_hours > 0
    with _Writer(memory) as writer:
        report = _swap(world, memory, tiny_version)
        # The writes go on behind the flip.
        behind = writer.steps + 3
        until(lambda: writer.failures or writer.steps >= behind)
    assert not writer.failures, writer.failures[0]
    assert writer.alive
    assert [(index.kind, index.vectors_checked > 0) for index in report.indexes] == [
        ("memories", True),
        ("entities", True),
    ]
    after = [rows(index) for index in agent(memory).live_indexes()]
    # What nobody wrote to is there bit for bit; what was written meanwhile is there as it was left.
    assert {id_: payload for id_, payload in after[0].items() if id_ in before[0]} == before[0]
    assert after[1] == before[1]
    notes = memory.get_all(filters={"user_id": "bob"}, top_k=1000)["results"]
    assert {item["id"]: item["memory"] for item in notes} == writer.alive
    assert_in_one_space(memory)
    # No search finds an entity, or a row of the other index, among the memories.
    found = memory.search(text_of(0), filters=ANN, top_k=200, threshold=0)["results"]
    assert {item["id"] for item in found} <= set(ids)
    _rolled_back_and_retired(world, memory, ids, stock)
    captured = next(iter(LogReader(open_database(world.settings.database_url)).scope_logs()))
    assert {one.id for one in captured.memories} >= set(ids) - {ids[2]}


def _rolled_back_and_retired(world: Any, memory: Any, ids: list[str], stock: str) -> None:
    memory.update(ids[1], "Bob sold his tomatoes.")
    memory.delete(ids[2])
    # An entity of a known name is merged, not doubled: Mem0 finds it by a cosine of at least 0.95.
    memory._upsert_entity("cello", "THING", ids[5], ANN)
    now = [rows(index) for index in agent(memory).live_indexes()]
    assert len(now[1]) == 2
    registry = Registry(world.settings)
    report = rollback_agent(agent(memory), registry, world.load, batch_size=BATCH)
    assert (report.version, agent(memory).encoder_version) == (stock, stock)
    assert report.indexes[0].reused >= 28
    assert [rows(index) for index in agent(memory).live_indexes()] == now
    assert_in_one_space(memory)
    assert memory.search("Bob sold his tomatoes.", filters=ANN)["results"][0]["id"] == ids[1]
    assert len(retire_agent(agent(memory), registry)) == 2
    assert registry.previous_index(agent(memory).store_id) is None
    assert [rows(index) for index in agent(memory).live_indexes()] == now


@every_store
@pytest.mark.parametrize("moment", ["build", "flip"])
def test_a_killed_swap_loses_nothing_and_resumes(world: Any, tiny_version: Any, moment: str) -> None:
    memory = world.open()
    ids = fill(memory, 40)
    before = [rows(index) for index in agent(memory).live_indexes()]
    world.close()
    with children(Child(swap_and_die, world, tiny_version.id, moment)) as (child,):
        child.killed()
    memory = world.open()
    assert (agent(memory).encoder_version == tiny_version.id) is (moment == "flip")
    assert [rows(index) for index in agent(memory).live_indexes()] == before
    memory.update(ids[0], "Ann sold her cello.")
    report = _swap(world, memory, tiny_version)
    if moment == "build":
        assert report.indexes[0].reused >= 15
    assert agent(memory).encoder_version == tiny_version.id
    assert memory.search("Ann sold her cello.", filters=ANN)["results"][0]["id"] == ids[0]
    assert agent(memory).live_indexes()[0].count() == 40
    assert_in_one_space(memory)


@pytest.mark.parametrize("world", EMBEDDED, indirect=True)
def test_an_embedded_store_that_another_process_holds_says_so(world: Any) -> None:
    with children(Child(hold, world)) as (child,):
        assert child.read() == "open"
        with pytest.raises(AgentError, match=r"is open (elsewhere|in another process).*use a"):
            world.open()
        child.tell()
        child.wait()
    memory = world.open()
    fill(memory, 4)
    assert memory.search(text_of(0), filters=ANN)["results"]
