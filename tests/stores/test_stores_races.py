"""Two processes that swap, roll back or purge at once: one may be refused, and the store is whole after each race."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from child_process import Child, children
from store_child import race
from store_world import BATCH, SERVERS, agent, assert_in_one_space, fill, rows

from hins_memory.database.engine import open_database
from hins_memory.log.reader import LogReader
from hins_memory.registry.registry import EncoderVersion, Registry
from hins_memory.swapping import swap_agent


@pytest.fixture
def other_version(tiny_folder: Path, world: Any, tmp_path: Path) -> EncoderVersion:
    """A second version, whose vectors are others."""
    import torch
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(tiny_folder), device="cpu")
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for weights in model.parameters():
            weights.add_(0.05 * torch.randn(weights.shape, generator=generator))
    model.save(str(tmp_path / "other"), safe_serialization=True)
    return Registry(world.settings).add(tmp_path / "other", {"base": "tiny"})


@pytest.mark.parametrize("world", SERVERS, indirect=True)
@pytest.mark.slow
def test_two_processes_at_once_leave_the_store_whole(
    world: Any, tiny_version: EncoderVersion, other_version: EncoderVersion
) -> None:
    memory = world.open()
    fill(memory, 40)
    stored = rows(agent(memory).live_indexes()[0])
    one, two = ("swap", tiny_version.id), ("swap", other_version.id)
    back, purge = ("rollback", ""), ("purge", "")
    races = [(one, two), (two, two), (one, back), (back, back), (two, purge), (back, purge), (one, one), (two, back)]
    with children(Child(race, world), Child(race, world)) as workers:
        assert [worker.read() for worker in workers] == ["ready", "ready"]
        for orders in races:
            for worker, order in zip(workers, orders, strict=True):
                worker.tell(order)
            ended = [worker.read() for worker in workers]
            assert "done" in ended, (orders, ended)
            assert all(end == "done" or end.startswith("SwapError") for end in ended), (orders, ended)
            serves = Registry(world.settings).live_index(agent(memory).store_id)
            assert serves is not None
            # every process follows within a second
            until = time.monotonic() + 1.2
            while agent(memory).encoder_version != serves.version and time.monotonic() < until:
                time.sleep(0.05)
                memory.search("Which number?", filters={"user_id": "ann"})
            memory.search("Which number?", filters={"user_id": "ann"})
            assert agent(memory).encoder_version == serves.version
            assert Registry(world.settings).shadow_index(agent(memory).store_id) is None, (orders, ended)
            assert rows(agent(memory).live_indexes()[0]) == stored
            assert_in_one_space(memory)
        for worker in workers:
            worker.tell(("end", ""))
            worker.wait()
    # what the searches above recorded since the last purge is all there is
    assert LogReader(open_database(world.settings.database_url)).counts().memories == 0


def _elsewhere(world: Any, *orders: tuple[str, str]) -> None:
    """Let another process do what `race` does when told to, all of it without a refusal."""
    with children(Child(race, world)) as (worker,):
        assert worker.read() == "ready"
        for order in orders:
            worker.tell(order)
            assert worker.read() == "done", order
        worker.tell(("end", ""))
        worker.wait()


@pytest.mark.parametrize("world", SERVERS, indirect=True)
@pytest.mark.slow
def test_an_index_that_another_process_dropped_is_made_again(
    world: Any, tiny_version: EncoderVersion, other_version: EncoderVersion
) -> None:
    memory = world.open()
    fill(memory, 10)
    stored = rows(agent(memory).live_indexes()[0])
    registry = Registry(world.settings)

    def swap(version: EncoderVersion) -> None:
        swap_agent(agent(memory), version.id, world.load(version.id), registry, batch_size=BATCH)

    swap(tiny_version)
    # An operation that began before the swap may still use it.
    used = agent(memory).binding
    swap(other_version)
    _elsewhere(world, ("retire", ""))
    swap(tiny_version)
    assert used is not agent(memory).binding
    assert rows(agent(memory).live_indexes()[0]) == stored
    assert_in_one_space(memory)


@pytest.mark.parametrize("world", SERVERS, indirect=True)
@pytest.mark.slow
def test_an_index_made_anew_is_used_by_a_process_that_slept(
    world: Any, tiny_version: EncoderVersion, other_version: EncoderVersion
) -> None:
    memory = world.open()
    fill(memory, 10)
    registry = Registry(world.settings)
    swap_agent(agent(memory), tiny_version.id, world.load(tiny_version.id), registry, batch_size=BATCH)
    memory.search("Which number?", filters={"user_id": "ann"})
    # The second swap drops nothing of what this process serves from; retiring does.
    _elsewhere(world, ("swap", other_version.id), ("retire", ""), ("swap", tiny_version.id))
    memory.add("Ann keeps bees now.", user_id="ann", infer=False)
    assert agent(memory).encoder_version == tiny_version.id
    live = registry.live_index(agent(memory).store_id)
    assert live is not None
    # Opened anew, as another process would.
    found = rows(agent(memory).bind(live.version, live.suffix).indexes()[0])
    assert len(found) == 11
    assert any("keeps bees" in one for one in found.values())
    assert_in_one_space(memory)
