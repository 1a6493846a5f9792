"""The tests of swaps: under writes, killed, rolled back, followed by other processes, and of queries only."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

import pytest

from hins_memory.encoders.encoder import Encoder
from hins_memory.swapping import retire_agent, swap_agent
from hins_memory.testing.claims import TEXTS, needs
from hins_memory.testing.driver import AdapterDriver
from hins_memory.testing.processes import Child, children
from hins_memory.testing.world import ANN, ContractWorld

__all__ = ["SwapContract"]


class SwapContract:
    """Each test is for the drivers that claim what it is about; see `AdapterContract`."""

    @needs("serve", "tower")
    def test_contract_a_tower_touches_no_vector(self, world: ContractWorld) -> None:
        """A swap that changes queries only, and its rollback, write nothing to the store; a restart keeps it."""
        world.open()
        for text in TEXTS[:5]:
            world.add(text)
        base, before = world.load(world.agent().encoder_version), world.stored()
        tower = world.add_version(world.tower, mode="tower", document_space=base.space).id
        assert world.swap(tower).indexes == ()
        assert world.agent().encoder_version == tower
        assert world.stored() == before
        world.add(TEXTS[5])
        assert world.search(TEXTS[5])
        texts = world.texts()
        world.assert_in_one_space()
        if world.driver.lasting:
            world.close()
            world.open()
        assert world.agent().encoder_version == tower
        assert world.roll_back().indexes == ()
        assert (world.agent().encoder_version, world.texts()) == (base.version, texts)
        world.assert_in_one_space()
        assert world.search(TEXTS[5])[0][1] == TEXTS[5]

    @needs("serve", "swap")
    def test_contract_a_swap_under_writes_loses_nothing(self, world: ContractWorld) -> None:
        """There, back and there again, while it is used: nothing fails, is lost, or mixes vectors of two encoders."""
        memory = world.open()
        for text in TEXTS:
            world.add(text)
        version = world.add_version(world.other).id
        first = world.agent().encoder_version
        with _Writer(world, memory) as writer:
            for step, serving in ((world.swap, version), (None, first), (world.swap, version)):
                _ = world.roll_back() if step is None else step(version)
                assert world.agent().encoder_version == serving
                time.sleep(0.1)
        assert not writer.failures, writer.failures[0]
        assert sorted(world.texts().values()) == sorted([*TEXTS, *writer.texts])
        world.assert_in_one_space()
        assert [world.search(text)[0][1] for text in TEXTS[:3]] == list(TEXTS[:3])

    @needs("serve", "swap")
    def test_contract_a_rollback_keeps_what_came_since(self, world: ContractWorld) -> None:
        """What was written after a swap is there after the rollback, in the vectors of the encoder before."""
        memory = world.open()
        ids = [world.add(text) for text in TEXTS[:6]]
        before, records = world.agent().encoder_version, world.texts()
        report = world.swap(world.add_version(world.other).id)
        assert world.texts() == records
        assert sum(index.vectors_checked for index in report.indexes) > 0
        world.add(TEXTS[6])
        if world.driver.has("update"):
            world.driver.update(memory, ids[0], TEXTS[7], ANN)
        if world.driver.has("delete"):
            world.driver.delete(memory, ids[1], ANN)
        now = world.texts()
        world.roll_back()
        assert world.agent().encoder_version == before
        assert world.texts() == now
        world.assert_in_one_space()
        assert world.search(TEXTS[6])[0][1] == TEXTS[6]
        assert retire_agent(world.agent(), world.registry)
        assert world.texts() == now

    @needs("serve", "swap", lasting=True)
    def test_contract_a_killed_swap_loses_nothing(self, world: ContractWorld) -> None:
        """A swap that is killed while it builds resumes; one killed behind its record is finished by who opens next."""
        world.open()
        for text in TEXTS:
            world.add(text)
        before, records = world.agent().encoder_version, world.texts()
        version = world.add_version(world.other).id
        world.close()
        with children(Child(_swap_and_die, world, version, "build")) as (child,):
            child.killed()
        world.open()
        assert (world.agent().encoder_version, world.texts()) == (before, records)
        world.assert_in_one_space()
        world.close()
        with children(Child(_swap_and_die, world, version, "flip")) as (child,):
            child.killed()
        world.open()
        assert (world.agent().encoder_version, world.texts()) == (version, records)
        world.assert_in_one_space()
        assert world.search(TEXTS[3])[0][1] == TEXTS[3]

    @needs("serve", "swap", shared=True)
    def test_contract_another_process_follows(self, world: ContractWorld) -> None:
        """A process that has the store open serves what another one swapped to, and its writes are not lost."""
        world.open()
        for text in TEXTS[:5]:
            world.add(text)
        version = world.add_version(world.other).id
        with children(Child(_follow, world)) as (child,):
            assert child.read() == world.agent().encoder_version
            world.swap(version)
            assert child.read() == version
            child.tell()
            written, failures = child.read()
            child.wait()
        assert failures == []
        assert sorted(world.texts().values()) == sorted([*TEXTS[:5], *written])
        world.assert_in_one_space()

    @needs("serve", "swap", shared=True)
    def test_contract_an_index_that_another_process_dropped_is_made_again(self, world: ContractWorld) -> None:
        """A process that used an index which another one dropped makes it anew, and writes into nothing else."""
        world.open()
        for text in TEXTS[:5]:
            world.add(text)
        version = world.add_version(world.other).id
        world.swap(version)
        # An operation that began before may still use them.
        used = world.agent().live_indexes()
        with children(Child(_roll_back_and_retire, world)) as (child,):
            assert child.read() == "retired"
            child.wait()
        world.add(TEXTS[5])
        world.swap(version)
        world.add(TEXTS[6])
        assert sorted(world.texts().values()) == sorted(TEXTS[:7])
        world.assert_in_one_space()
        del used
        # What another process finds is what this one wrote.
        assert _elsewhere(world) == (version, sorted(TEXTS[:7]))

    @needs("serve", "swap", shared=True)
    def test_contract_an_index_made_anew_is_used_by_who_slept(self, world: ContractWorld) -> None:
        """A process that does nothing while another one drops the index that serves and makes it anew uses the new."""
        world.open()
        for text in TEXTS[:5]:
            world.add(text)
        version, first = world.add_version(world.other).id, world.agent().encoder_version
        with children(Child(_swap_away_and_back, world, version)) as (child,):
            assert child.read() == first
            child.wait()
        world.add(TEXTS[5])
        assert world.search(TEXTS[5])[0][1] == TEXTS[5]
        assert _elsewhere(world) == (first, sorted(TEXTS[:6]))
        world.assert_in_one_space()

    @needs("serve", "swap")
    def test_contract_a_shadow_that_fails_stops_nothing(
        self, world: ContractWorld, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """While an index is built whose encoder fails, the agent goes on; what it wrote is copied later."""
        world.open()
        world.add(TEXTS[0])
        version, agent = world.add_version(world.other).id, world.agent()
        encode = Encoder.encode

        def failing(encoder: Encoder, *args: Any, **options: Any) -> Any:
            if encoder.version == version:
                raise RuntimeError("out of memory")
            return encode(encoder, *args, **options)

        world.registry.begin_shadow(agent.store_id, version, "_next")
        indexes = agent.open_indexes(version, "_next")
        agent.start_dual_write(version, "_next")
        with monkeypatch.context() as patch:
            patch.setattr(Encoder, "encode", failing)
            world.add(TEXTS[1])
            assert world.search(TEXTS[1])[0][1] == TEXTS[1]
        agent.flush_dual_writes()
        copied = {record.text for index in indexes for page in index.pages(9) for record in page}
        assert TEXTS[1] in map(world.driver.said, copied)
        agent.stop_dual_write()


class _Writer:
    """A thread that adds and searches until it is stopped; keeps what must be there afterwards."""

    def __init__(self, world: ContractWorld, memory: Any) -> None:
        self.texts: list[str] = []
        self.failures: list[BaseException] = []
        self._driver, self._memory = world.driver, memory
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> _Writer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                _write(self._driver, self._memory, self.texts, "thread")
                time.sleep(0.02)
        except BaseException as error:
            self.failures.append(error)


def _write(driver: AdapterDriver, memory: Any, texts: list[str], who: str) -> None:
    """Add one text and look for it; it is in `texts` afterwards."""
    texts.append(f"The {who} wrote note {len(texts)}.")
    driver.add(memory, texts[-1], ANN)
    # A text finds itself only where query and index are of one encoder.
    found = driver.search(memory, texts[-1], ANN, 1)
    assert [text for _, text in found] == texts[-1:], "a text that was just stored is not found"


def _swap_and_die(channel: Any, world: ContractWorld, version: str, moment: str) -> None:
    """Swap, and be killed while the index is built, or right behind the record of the flip."""
    world.open()
    agent: Any = world.agent()

    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def progress(what: str, done: int, total: int) -> None:
        if moment == "build" and done >= total / 2 > 1:
            die()

    if moment == "flip":
        agent.switch_to = die
    swap_agent(agent, version, world.load(version), world.registry, batch_size=3, progress=progress)


def _follow(channel: Any, world: ContractWorld) -> None:
    """Use the store until told to end; say when another encoder serves, and at the end what was written."""
    memory = world.open()
    texts: list[str] = []
    failures: list[str] = []
    served = ""
    while not channel.poll(0.1):
        try:
            _write(world.driver, memory, texts, "process")
        except Exception as error:
            failures.append(repr(error))
        if (version := world.agent().encoder_version) != served:
            served = version
            channel.send(served)
    channel.send((texts, failures))
    world.close()


def _roll_back_and_retire(channel: Any, world: ContractWorld) -> None:
    """Return to what served before the last swap, and drop what that swap made."""
    world.open()
    world.roll_back()
    retire_agent(world.agent(), world.registry)
    channel.send("retired")
    world.close()


def _swap_away_and_back(channel: Any, world: ContractWorld, version: str) -> None:
    """Swap to a version, drop what served before, and swap back to that; say what serves."""
    world.open()
    first = world.agent().encoder_version
    world.swap(version)
    retire_agent(world.agent(), world.registry)
    world.swap(first)
    channel.send(world.agent().encoder_version)
    world.close()


def _elsewhere(world: ContractWorld) -> Any:
    """Return which encoder serves another process, and the texts that are stored for it."""
    with children(Child(_read_texts, world)) as (child,):
        found = child.read()
        child.wait()
    return found


def _read_texts(channel: Any, world: ContractWorld) -> None:
    """Say which encoder serves, and what is stored."""
    world.open()
    channel.send((world.agent().encoder_version, sorted(world.texts().values())))
    world.close()
