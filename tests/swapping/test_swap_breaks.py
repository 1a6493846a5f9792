"""Every way a swap can break: kills, full disks, damaged shadows, stores that lie, two at once."""

import signal

import numpy as np
import pytest
from child_process import run_python
from small_agent import SmallIndex, contents, worst_cosine

from hins_memory.errors import SwapError
from hins_memory.plugins.protocols import Record
from hins_memory.swapping import abandon_swap, retire_agent, swap_agent

pytestmark = pytest.mark.slow

KILLED_SWAP = """
import os, signal, sys
from pathlib import Path
from small_agent import SmallAgent
from hins_memory.config import Settings
from hins_memory.registry.registry import Registry
from hins_memory.encoders.encoder import Encoder
from hins_memory.swapping import retire_agent, rollback_agent, swap_agent
home, version, moment = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
registry = Registry(Settings(home=home, project="test"))
agent = SmallAgent(home / "store.db", registry)
encoder = Encoder.load(registry.get(version).path)
def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)
def progress(what, done, total):
    if moment == f"at:{what}:{done}":
        die()
if moment == "before the flip":
    registry.flip = die
elif moment == "inside the flip":
    import hins_memory.registry.registry
    hins_memory.registry.registry._set_current = die
elif moment == "after the record":
    agent.switch_to = die
elif moment == "before the old one is dropped":
    registry.forget = die
swap_agent(agent, version, encoder, registry, batch_size=20, progress=progress)
if moment == "before the old one is dropped":
    retire_agent(agent, registry)
"""

MOMENTS = {
    "at:build memories:40": (False, 40),
    "at:verify memories:60": (False, 60),
    "at:build entities:10": (False, 60),
    "before the flip": (False, 60),
    "inside the flip": (False, 60),
    "after the record": (True, 60),
    "before the old one is dropped": (True, 60),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_kill_at_any_step_loses_nothing_and_the_swap_resumes(world, moment):
    agent = world.agent(60)
    wanted = [contents(index) for index in agent.live_indexes()]
    agent.store.connection.close()
    killed = run_python(KILLED_SWAP, str(world.settings.home), world.one, moment)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    flipped, done = MOMENTS[moment]
    agent = world.agent()
    assert agent.encoder_version == (world.one if flipped else world.stock.version)
    assert [contents(index) for index in agent.live_indexes()] == wanted
    assert all(worst_cosine(index, agent.binding.encoder) > 0.999 for index in agent.live_indexes())
    # a write between the kill and the resume reaches the live index only, and must not be forgotten
    agent.add("m0003", "Dai moved to Porto.")
    agent.delete("m0004")
    report = world.swap(agent)
    assert report.changed is not flipped
    if not flipped:
        assert report.indexes[0].reused == done - 2
    found = contents(agent.live_indexes()[0])
    assert found["m0003"][0] == "Dai moved to Porto."
    assert "m0004" not in found
    assert len(found) == 59
    assert worst_cosine(agent.live_indexes()[0], world.load(world.one)) > 0.999
    retire_agent(agent, world.registry)
    assert world.registry.retired_indexes(agent.store_id) == []


def test_an_agent_that_cannot_flip_serves_on_and_the_swap_resumes(world):
    agent = world.agent(20)
    agent.switch_to, flip = lambda *args: 1 / 0, agent.switch_to
    with pytest.raises(SwapError, match=r"could not be flipped.*division by zero\. Run the same"):
        world.swap(agent)
    assert world.registry.live_index(agent.store_id).version == agent.encoder_version == world.stock.version
    assert world.registry.current() is None
    agent.add("m9999", "Written in between.")
    agent.switch_to = flip
    report = world.swap(agent)
    assert (report.indexes[0].written, report.indexes[0].reused) == (1, 20)
    assert agent.encoder_version == world.one
    assert contents(agent.live_indexes()[0])["m9999"][0] == "Written in between."


def test_nothing_is_recorded_while_the_shadow_lacks_a_write(world):
    agent = world.agent(20)
    agent.flush_dual_writes, recorded = lambda: 1 / 0, world.registry.flip
    world.registry.flip = lambda *args: pytest.fail("recorded although the shadow lacks a write")
    with pytest.raises(SwapError, match="could not be flipped"):
        world.swap(agent)
    assert world.registry.live_index(agent.store_id).version == agent.encoder_version == world.stock.version
    del agent.flush_dual_writes
    world.registry.flip = recorded
    assert world.swap(agent).version == world.one


def test_a_registry_that_cannot_record_the_flip_leaves_everything_as_it_was(world, monkeypatch):
    agent = world.agent(20)
    monkeypatch.setattr("hins_memory.registry.registry._set_current", lambda *args: 1 / 0)
    with pytest.raises(SwapError, match="could not be flipped"):
        world.swap(agent)
    assert agent.shadow is None
    assert world.registry.live_index(agent.store_id).version == agent.encoder_version == world.stock.version
    assert world.registry.shadow_index(agent.store_id).version == world.one


def test_a_process_that_did_not_follow_a_flip_follows_with_the_next_call(world):
    first, second = world.agent(10), world.agent()
    world.swap(first)
    assert world.swap(second).changed
    assert second.encoder_version == world.one
    assert second.search("cello", 10) == first.search("cello", 10)


def test_a_full_disk_leaves_the_live_index_and_a_swap_to_resume(world):
    agent = world.agent(100)
    pages = agent.store.execute("pragma page_count")[0][0]
    agent.store.execute(f"pragma max_page_count = {pages + 6}")
    with pytest.raises(SwapError, match=r"full.*resumes"):
        world.swap(agent, batch_size=10)
    assert agent.encoder_version == world.stock.version
    assert agent.search("Who grows tomatoes?")
    assert world.registry.shadow_index(agent.store_id).version == world.one
    agent.store.execute(f"pragma max_page_count = {pages * 10}")
    report = world.swap(agent)
    assert 0 < report.indexes[0].reused < 100
    assert report.indexes[0].written + report.indexes[0].reused == 100


def test_vectors_that_something_else_damaged_are_encoded_again(world):
    agent = world.agent(40)
    (shadow, _) = agent.open_indexes(world.one, suffix := "_" + world.one.replace("-", "_"))
    records = [record for page in agent.live_indexes()[0].pages(100) for record in page]
    shadow.upsert([*records, Record("extra", "not in the live one", {})], world.stock.encode(["x"] * 41))
    world.registry.begin_shadow(agent.store_id, world.one, suffix)
    report = world.swap(agent)
    assert (report.indexes[0].deleted, report.indexes[0].written) == (1, 40)
    assert worst_cosine(agent.live_indexes()[0], world.load(world.one)) > 0.999


class LosingIndex(SmallIndex):
    """A store that says it wrote, and did not write one of the records."""

    def upsert(self, records, vectors):
        kept = [
            row for row, record in enumerate(records) if record.id != "m0007" or not self.table.startswith("memories_")
        ]
        super().upsert([records[row] for row in kept], np.asarray(vectors)[kept])


class TurningIndex(SmallIndex):
    """A store that alters the vectors of its shadow tables."""

    def upsert(self, records, vectors):
        super().upsert(records, vectors[:, ::-1] if "_v" in self.table else vectors)


@pytest.mark.parametrize(("index_type", "message"), [(LosingIndex, "differ"), (TurningIndex, "sampled vectors")])
def test_a_store_that_loses_or_alters_is_found_out(world, monkeypatch, index_type, message):
    monkeypatch.setattr("hins_memory.swapping.sync._WAITS", 2)
    agent = world.agent(20, index_type)
    with pytest.raises(SwapError, match=message):
        world.swap(agent)
    assert agent.encoder_version == world.stock.version
    assert agent.shadow is None
    assert world.registry.live_index(agent.store_id).suffix == ""


def test_another_encoder_than_the_version_is_refused(world):
    agent = world.agent(3)
    with pytest.raises(SwapError, match="was loaded"):
        swap_agent(agent, world.one, world.stock, world.registry)
    assert world.registry.shadow_index(agent.store_id) is None


def test_two_swaps_at_once_one_is_refused(world):
    agent = world.agent(30)
    refused = []

    def second(what, done, total):
        with pytest.raises(SwapError, match="is running"):
            world.swap(agent, world.two)
        refused.append(done)

    world.swap(agent, progress=second)
    assert refused
    assert agent.encoder_version == world.one


def test_an_agent_that_another_process_swapped_is_refused_until_reopened(world):
    first, second = world.agent(10), world.agent()
    world.swap(first)
    with pytest.raises(SwapError, match="Open the agent again"):
        world.swap(second, world.two)
    assert world.registry.shadow_index(first.store_id) is None


def test_an_interrupted_swap_gives_way_to_another_version(world):
    agent = world.agent(30)

    def interrupt(what, done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        world.swap(agent, progress=interrupt)
    assert agent.shadow is None
    world.swap(agent, world.two)
    assert agent.encoder_version == world.two
    tables = [name for (name,) in agent.store.execute("select name from sqlite_master where type = 'table'")]
    assert len(tables) == 4
    assert not any(world.one.replace("-", "_") in name for name in tables)


def test_abandoning_drops_the_shadow_only(world):
    agent = world.agent(30)
    with pytest.raises(KeyboardInterrupt):
        world.swap(agent, progress=lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    assert len(abandon_swap(agent, world.registry)) == 2
    assert world.registry.shadow_index(agent.store_id) is None
    assert len(contents(agent.live_indexes()[0])) == 30
