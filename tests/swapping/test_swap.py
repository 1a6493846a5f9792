"""The swap on a small real agent: swap, live writes, rollback, retirement, dry run."""

import threading
import time

import pytest
from small_agent import SmallAgent, SmallIndex, contents, worst_cosine
from swap_world import fill, text_of
from waiting import until

from hins_memory.errors import AgentError, LogError, SwapError
from hins_memory.plugins.protocols import Agent, Index, check_agent
from hins_memory.sdk import AgentBase
from hins_memory.swapping import Scale, plan_swap, retire_agent, rollback_agent

pytestmark = pytest.mark.slow


def test_the_small_agent_keeps_the_protocol(world):
    agent = world.agent()
    assert isinstance(agent, Agent)
    assert all(isinstance(index, Index) for index in agent.live_indexes())


def test_a_swap_re_embeds_everything_and_keeps_the_old(world):
    agent = world.agent(300)
    before = [contents(index) for index in agent.live_indexes()]
    heard = []
    report = world.swap(agent, batch_size=64, progress=lambda *event: heard.append(event))
    assert report.changed
    assert (report.version, report.previous) == (world.one, world.stock.version)
    assert [(i.kind, i.records, i.written, i.reused) for i in report.indexes] == [
        ("memories", 300, 300, 0),
        ("entities", 10, 10, 0),
    ]
    assert agent.encoder_version == world.one
    assert [contents(index) for index in agent.live_indexes()] == before
    assert all(worst_cosine(index, world.load(world.one)) > 0.999 for index in agent.live_indexes())
    assert world.registry.live_index(agent.store_id).version == world.one
    assert world.registry.previous_index(agent.store_id).suffix == ""
    assert world.registry.current().id == world.one
    assert contents(SmallIndex(agent.store, "memories", "")) == before[0]
    assert worst_cosine(SmallIndex(agent.store, "memories", ""), world.stock) > 0.999
    assert heard[0] == ("build memories", 64, 300)
    assert ("verify memories", 300, 300) in heard
    assert report.to_dict()["indexes"][0]["vectors_checked"] == 256


def test_other_processes_see_how_far_a_swap_is_until_it_has_ended(world):
    seen = []
    agent = world.agent(300)
    report = world.swap(agent, batch_size=64, progress=lambda *_: seen.extend(world.registry.swap_progress()))
    assert report.changed
    first, *_ = seen
    assert (first.version, first.step, first.done, first.records) == (world.one, "build memories", 64, 300)
    assert {one.step for one in seen} >= {"verify memories", "build entities", "verify entities"}
    assert world.registry.swap_progress() == []


def test_a_swap_goes_on_when_its_progress_cannot_be_noted(world, monkeypatch, caplog):
    def refuse(*_):
        raise LogError("The disk is full.", "Make room.")

    monkeypatch.setattr(world.registry, "note_progress", refuse)
    assert world.swap(world.agent(5)).changed
    assert "The disk is full" in caplog.text


def test_a_process_that_starts_later_opens_the_swapped_index(world):
    world.swap(world.agent(30))
    again = world.agent()
    assert again.encoder_version == world.one
    assert again.search("Who plays the cello on day 5?", 30)
    assert len(contents(again.live_indexes()[0])) == 30


def test_an_empty_agent_is_swapped_too(world):
    agent = world.agent()
    assert [index.records for index in world.swap(agent).indexes] == [0, 0]
    agent.add("m1", "Ann plays the cello.")
    assert agent.search("cello") == ["m1"]


def test_the_same_swap_again_does_nothing(world):
    agent = world.agent(5)
    world.swap(agent)
    report = world.swap(agent)
    assert not report.changed
    assert world.registry.previous_index(agent.store_id).version == world.stock.version


def test_a_version_that_was_compared_with_one_that_serves_no_more_is_refused(world):
    world.swap(world.agent(20), world.one, replaces=world.stock.version)
    # As an agent that follows what other processes swap finds it.
    ours = world.agent()
    with pytest.raises(SwapError, match=f"{world.one} serves by now"):
        world.swap(ours, world.two, replaces=world.stock.version)
    assert ours.encoder_version == world.one == world.registry.live_index(ours.store_id).version
    assert world.registry.shadow_index(ours.store_id) is None
    assert world.swap(ours, world.two, replaces=world.one).changed


def test_a_rollback_brings_the_writes_since_along(world):
    agent = world.agent(50)
    world.swap(agent)
    agent.add("m9999", "Ann sold her cello.")
    agent.add("m0001", "Bob moved to Porto.", n=-1)
    agent.delete("m0002")
    after = contents(agent.live_indexes()[0])
    report = rollback_agent(agent, world.registry, world.load)
    assert (report.version, report.previous) == (world.stock.version, world.one)
    assert (report.indexes[0].written, report.indexes[0].reused, report.indexes[0].deleted) == (2, 48, 1)
    assert contents(agent.live_indexes()[0]) == after
    assert worst_cosine(agent.live_indexes()[0], world.stock) > 0.999
    assert world.registry.current() is None
    # and forward again, reusing what is there
    again = world.swap(agent)
    assert again.indexes[0].reused == 50
    assert agent.encoder_version == world.one


def test_a_rollback_that_fails_changes_nothing(world):
    agent = world.agent(5)
    with pytest.raises(SwapError, match="no previous index"):
        rollback_agent(agent, world.registry, world.load)
    world.swap(agent)
    with pytest.raises(SwapError, match="was loaded"):
        rollback_agent(agent, world.registry, lambda version: world.load(world.two))
    assert agent.encoder_version == world.one
    assert world.registry.live_index(agent.store_id).version == world.one


def test_retiring_drops_the_old_index(world):
    agent = world.agent(10)
    world.swap(agent)
    assert retire_agent(agent, world.registry) == ["memories", "entities"]
    tables = {name for (name,) in agent.store.execute("select name from sqlite_master where type = 'table'")}
    assert tables == {index.name for index in agent.live_indexes()}
    with pytest.raises(SwapError, match="no previous index"):
        rollback_agent(agent, world.registry, world.load)
    assert retire_agent(agent, world.registry) == []


def test_a_third_swap_drops_the_first_index(world):
    agent = world.agent(10)
    world.swap(agent)
    world.swap(agent, world.two)
    tables = {name for (name,) in agent.store.execute("select name from sqlite_master where type = 'table'")}
    assert "memories" not in tables
    assert len(tables) == 4
    assert world.registry.retired_indexes(agent.store_id) == []


class OwnEncoderAgent(SmallAgent):
    """An agent that embeds with an encoder of its own until it is swapped."""

    @property
    def encoder_version(self):
        return super().encoder_version if self.binding.suffix else ""


@pytest.mark.parametrize("recorded", [True, False])
def test_the_index_of_an_agents_own_encoder_is_never_dropped(world, recorded):
    agent = OwnEncoderAgent(world.path, world.registry, world.load)
    fill(agent, 10)
    with world.registry._transaction() as connection:
        connection.exec_driver_sql("update agent_indexes set version = ''" if recorded else "delete from agent_indexes")
    assert world.swap(agent).previous == ""
    with pytest.raises(SwapError, match="encoder of its own" if recorded else "no previous index"):
        rollback_agent(agent, world.registry, world.load)
    world.swap(agent, world.two)
    assert len(retire_agent(agent, world.registry)) == 2
    assert len(contents(SmallIndex(agent.store, "memories", ""))) == 10
    assert agent.encoder_version == world.two


def test_the_dry_run_counts_and_estimates_without_changing_anything(world):
    agent = world.agent(200)
    plan = plan_swap(agent, world.load(world.one))
    assert (plan.records, plan.from_version, plan.to_version) == (210, world.stock.version, world.one)
    assert [index.kind for index in plan.indexes] == ["memories", "entities"]
    assert 210 * 4 * 64 < plan.disk_bytes < 210 * 4 * 64 * 1.5
    # A machine that stalls spoils one of these, a wrong estimate all.
    for _ in range(5):
        started = time.perf_counter()
        world.load(world.one).encode([text_of(n) for n in range(1000, 1200)])
        took = time.perf_counter() - started
        if took / 10 < plan.seconds < took * 10:
            break
        plan = plan_swap(agent, world.load(world.one))
    assert took / 10 < plan.seconds < took * 10
    assert plan.to_dict()["records"] == 210
    assert world.registry.shadow_index(agent.store_id) is None
    assert plan_swap(world.agent(), world.stock).indexes[0].records == 200


def test_a_plan_for_a_billion_is_by_rates_that_were_measured_or_given_and_leaves_no_index_behind(world):
    agent = world.agent(200)
    encoder = world.load(world.one)
    tables = "select name from sqlite_master order by name"
    before = agent.store.execute(tables)
    plan = plan_swap(agent, encoder, world.registry, Scale(1e9)).projection
    assert plan is not None
    assert plan.measured == ("encoding", "writing")
    memories, entities = plan.indexes
    # The other index grows in proportion: 10 entities for 200 memories.
    assert (memories.records, entities.records) == (1e9, 5e7)
    assert min(memories.encode_rate, memories.write_rate) > 0
    assert 1.05e9 * 4 * encoder.dim < plan.disk_bytes < plan.traffic_bytes
    assert agent.store.execute(tables) == before

    given = plan_swap(agent, encoder, world.registry, Scale(1e9, 2000.0, 10_000.0)).projection
    assert given is not None
    assert given.measured == ()
    assert given.encode_hours == pytest.approx(1.05e9 / 2000 / 3600)
    assert (given.devices_for_a_day, given.writers_for_a_day) == (7, 2)
    # Nothing is embedded again where the vectors are the same.
    assert plan_swap(agent, world.stock, world.registry, Scale(1e9)).to_dict().get("projection") is None


class Worker(threading.Thread):
    """Repeats a step until it is stopped; keeps what it raised."""

    def __init__(self, step):
        super().__init__()
        self.step, self.stop, self.rounds, self.error = step, threading.Event(), 0, None

    def run(self):
        try:
            while not self.stop.is_set():
                self.rounds += 1
                self.step(self.rounds)
                time.sleep(0.002)
        except Exception as error:
            self.error = error


def writer(agent, number, own, changes):
    """Return a step that adds, changes and deletes memories of its own, and notes what should be there."""

    def step(round):
        agent.add(new := f"w{number}-{round:05}", text := f"Worker {number} noted {round}.")
        changes[new] = text
        if round % 2:
            agent.add(own[round % len(own)], text := f"Changed by {number}, time {round}.")
            changes[own[round % len(own)]] = text
        if round % 5 == 0:
            agent.delete(own[round // 5 % len(own)])
            changes[own[round // 5 % len(own)]] = None

    return step


def test_writes_and_searches_during_the_swap_lose_nothing(world):
    agent = world.agent(400)
    expected = {id: text for id, (text, _) in contents(agent.live_indexes()[0]).items()}
    ids = sorted(expected)
    changes = {number: {} for number in range(3)}
    workers = [Worker(writer(agent, number, ids[number::4], changes[number])) for number in range(3)]

    def search(round):
        # Its own text finds a memory first, unless the query and the index are of different spaces.
        id = ids[3::4][round % 100]
        assert agent.search(expected[id], 1) == [id]

    workers.append(Worker(search))
    for worker in workers:
        worker.start()

    def all_go_on(before):
        until(lambda: all(worker.error or worker.rounds > then for worker, then in zip(workers, before, strict=True)))

    def progress(what, done, total):
        # In the middle of the building, so that each has changed something that was copied and something that was not.
        if what == "build memories" and done == 208:
            all_go_on([5] * 4)

    report = world.swap(agent, batch_size=16, progress=progress)
    rounds = [worker.rounds for worker in workers]
    all_go_on(rounds)
    for worker in workers:
        worker.stop.set()
        worker.join()
    assert [worker.error for worker in workers] == [None] * 4
    assert all(5 < before < worker.rounds for before, worker in zip(rounds, workers, strict=True))
    assert report.changed
    for change in changes.values():
        expected.update(change)
    wanted = {id: text for id, text in expected.items() if text is not None}
    assert {id: text for id, (text, _) in contents(agent.live_indexes()[0]).items()} == wanted
    assert worst_cosine(agent.live_indexes()[0], world.load(world.one)) > 0.999


def test_an_agent_with_the_members_of_another_version_is_refused_by_their_names(world):
    check_agent(world.agent())

    class Older(AgentBase):
        name = key = "older"
        begin = abandon = drain = flip = live = open = None  # as in 0.1
        store_id = encoder_version = "older"

    with pytest.raises(AgentError, match="Older of an adapter has no live_indexes, open_indexes, start_dual_write"):
        check_agent(Older())
