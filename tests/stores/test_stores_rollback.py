"""A rollback brings over what was written since the swap, without looking at everything else."""

from __future__ import annotations

from typing import Any

import pytest
from store_world import ANN, BATCH, agent, assert_in_one_space, fill, rows

from hins_memory.registry.registry import Registry
from hins_memory.swapping import rollback_agent, swap_agent
from hins_memory.swapping.sync import IndexSync

pytestmark = pytest.mark.slow

one_store = pytest.mark.parametrize("world", ["qdrant", "pgvector"], indirect=True)


def _swapped(world: Any, version: Any) -> tuple[Any, list[str]]:
    memory = world.open()
    ids = fill(memory, 30)
    swap_agent(agent(memory), version.id, world.load(version.id), Registry(world.settings), batch_size=BATCH)
    return memory, ids


def _back(world: Any, memory: Any) -> Any:
    return rollback_agent(agent(memory), Registry(world.settings), world.load, batch_size=BATCH)


@one_store
def test_only_what_was_written_is_brought_over(world: Any, tiny_version: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    memory, ids = _swapped(world, tiny_version)
    memory.update(ids[0], "Ann sold her cello.")
    memory.delete(ids[1])
    late = memory.add("Ann found a kite.", user_id="ann", infer=False)["results"][0]["id"]
    memory._upsert_entity("kite", "THING", late, ANN)
    now = [rows(index) for index in agent(memory).live_indexes()]
    monkeypatch.setattr(IndexSync, "_copy", lambda *args, **kwargs: pytest.fail("everything is compared"))
    report = _back(world, memory)
    # Mem0 drops the entity that only the updated memory mentioned, and the kite is new.
    assert [(index.written, index.deleted) for index in report.indexes] == [(2, 1), (1, 1)]
    assert [rows(index) for index in agent(memory).live_indexes()] == now
    assert_in_one_space(memory)
    # And forward: nothing is known of the index that was left, until it is compared.
    monkeypatch.undo()
    swap_agent(agent(memory), tiny_version.id, world.load(tiny_version.id), Registry(world.settings))
    assert [rows(index) for index in agent(memory).live_indexes()] == now


@one_store
def test_what_a_second_process_wrote_is_brought_over_too(world: Any, tiny_version: Any) -> None:
    _, ids = _swapped(world, tiny_version)
    world.close()
    again = world.open()
    again.update(ids[2], "Ann sold her cello.")
    report = _back(world, again)
    assert report.indexes[0].written == 1
    assert again.get(ids[2])["memory"] == "Ann sold her cello."
    assert_in_one_space(again)


@one_store
def test_an_index_that_differs_otherwise_is_compared_as_a_whole(world: Any, tiny_version: Any) -> None:
    memory, ids = _swapped(world, tiny_version)
    registry = Registry(world.settings)
    previous = registry.previous_index(agent(memory).store_id)
    agent(memory).open_indexes(previous.version, previous.suffix)[0].delete(ids[:3])
    report = _back(world, memory)
    assert report.indexes[0].written == 3
    assert agent(memory).live_indexes()[0].count() == 30
    assert_in_one_space(memory)
