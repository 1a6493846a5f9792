"""Swapping a real Mem0 while it is used: nothing lost, no spaces mixed, a way back, the same after a restart."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import numpy as np
import pytest
from hins_adapter_mem0 import AsyncMemory, Memory
from hins_adapter_mem0.attaching import agent_of
from hins_adapter_mem0.plugin import plugin
from mem0_world import ANN, FACTS, fill
from waiting import until

from hins_memory.config import Settings
from hins_memory.encoders.encoder import Encoder
from hins_memory.errors import AgentError
from hins_memory.plugins.protocols import Agent, Index
from hins_memory.registry.registry import EncoderVersion, Registry
from hins_memory.sdk.dual_write import WriteTracker
from hins_memory.swapping import rollback_agent, swap_agent

pytestmark = pytest.mark.slow


def _agent(memory: Any) -> Any:
    agent = agent_of(memory)
    assert agent is not None
    return agent


def _rows(index: Any) -> dict[str, Any]:
    return {record.id: dict(record.payload) for page in index.pages(3) for record in page}


def _assert_in_one_space(memory: Any) -> None:
    """Every stored vector, of memories and entities, is what the serving encoder makes of its text."""
    agent = _agent(memory)
    encoder = memory.embedding_model.encoder
    assert agent.encoder_version == encoder.version
    for index in agent.live_indexes():
        rows = _rows(index)
        vectors = index.vectors(list(rows))
        assert set(vectors) == set(rows)
        for key, payload in rows.items():
            expected = encoder.encode([payload["data"]], role="document")[0]
            assert float(np.dot(expected, vectors[key])) > 0.999


def _swap(memory: Any, version: EncoderVersion, settings: Settings) -> None:
    swap_agent(_agent(memory), version.id, Encoder.load(version.path), Registry(settings), batch_size=4)


def _load(settings: Settings) -> Any:
    registry = Registry(settings)
    return lambda version: Encoder.load(registry.get(version).path if version.startswith("v0") else "stock")


def test_the_agent_keeps_the_protocols(settings: Settings) -> None:
    memory = Memory(settings=settings)
    agent = _agent(memory)
    assert isinstance(agent, Agent)
    assert all(isinstance(index, Index) for index in agent.live_indexes())
    assert agent.name == "mem0"
    assert agent.score_thresholds == (0.1, 0.5, 0.95)
    assert agent.store_id == f"mem0:qdrant:{settings.agent_folder('mem0') / 'qdrant'}:mem0"
    assert [(index.kind, index.name) for index in agent.live_indexes()] == [
        ("memories", "mem0"),
        ("entities", "mem0_entities"),
    ]


def test_an_index_of_qdrant(settings: Settings) -> None:
    memory = Memory(settings=settings)
    ids = fill(memory)
    index = _agent(memory).live_indexes()[0]
    assert index.count() == len(FACTS)
    assert [len(page) for page in index.pages(4)] == [4, 2]
    assert {record.text for page in index.pages(1) for record in page} == set(FACTS)
    missing = "0b9d0be3-8ba0-4f2c-b6a8-3d6ad3d10bd2"
    assert [record.id for record in index.get([ids[0], missing])] == [ids[0]]
    # The spelling of a UUID does not matter.
    assert [record.id for record in index.get([ids[0].upper().replace("-", "")])] == [ids[0]]
    assert set(index.vectors([*ids, missing])) == set(ids)
    index.delete([ids[0], missing])
    assert index.count() == len(FACTS) - 1
    (record,) = index.get([ids[1]])
    index.upsert([record], np.ones((1, 384), dtype=np.float32))
    assert dict(index.get([ids[1]])[0].payload) == dict(record.payload)
    assert float(np.linalg.norm(index.vectors([ids[1]])[ids[1]])) == pytest.approx(1.0, abs=1e-4)


def test_every_memory_of_the_process_follows(settings: Settings, tiny_version: EncoderVersion) -> None:
    memory, other, asynchronous = Memory(settings=settings), Memory(settings=settings), AsyncMemory(settings=settings)
    ids = fill(memory)
    _swap(memory, tiny_version, settings)
    assert other.vector_store.embedding_model_dims == 32
    assert other.search(FACTS[0], filters=ANN)["results"][0]["id"] == ids[0]
    found = asyncio.run(asynchronous.search(FACTS[1], filters=ANN))
    assert found["results"][0]["id"] == ids[1]


def test_an_operation_stays_in_its_space_when_a_flip_happens_inside(
    settings: Settings, tiny_version: EncoderVersion
) -> None:
    """A search that is between embedding and searching, and an add between embedding and storing, meet a flip."""
    memory = Memory(settings=settings)
    ids = fill(memory)
    agent = _agent(memory)
    suffix = "_next"
    Registry(settings).begin_shadow(agent.store_id, tiny_version.id, suffix)
    for source, target in zip(agent.live_indexes(), agent.open_indexes(tiny_version.id, suffix), strict=True):
        records = [record for page in source.pages(100) for record in page]
        if records:
            encoder = Encoder.load(tiny_version.path)
            target.upsert(records, encoder.encode([record.text for record in records]))
    agent.start_dual_write(tiny_version.id, suffix)
    old = memory.embedding_model
    embedded, flipped = threading.Event(), threading.Event()
    original = old.encoder.encode

    def slow(batch: list[str], **options: Any) -> Any:
        vectors = original(batch, **options)
        if threading.current_thread() is not threading.main_thread():
            embedded.set()
            assert flipped.wait(60)
        return vectors

    old.encoder.encode = slow
    results: list[Any] = []
    try:
        for work in (
            lambda: memory.search(FACTS[0], filters=ANN),
            lambda: memory.add("Ann bought a red bicycle.", user_id="ann", infer=False),
        ):
            embedded.clear()
            flipped.clear()
            thread = threading.Thread(target=lambda work=work: results.append(work()))
            thread.start()
            assert embedded.wait(60)
            agent.switch_to(tiny_version.id, suffix)
            assert memory.embedding_model is not old
            flipped.set()
            thread.join(60)
            if len(results) == 1:
                # Back again, so that the next operation starts in the old space too.
                Registry(settings).flip(agent.store_id, suffix)
                agent.switch_to(old.encoder.version, "")
                agent.start_dual_write(tiny_version.id, suffix)
                old = memory.embedding_model
                old.encoder.encode = slow
    finally:
        old.encoder.encode = original
    assert results[0]["results"][0]["id"] == ids[0]
    new_id = results[1]["results"][0]["id"]
    assert memory.get(new_id)["memory"] == "Ann bought a red bicycle."
    assert memory.search("Ann bought a red bicycle.", filters=ANN)["results"][0]["id"] == new_id
    _assert_in_one_space(memory)


class _Load:
    """Threads that add, update, delete and search until they are stopped; keeps what must be there afterwards."""

    def __init__(self, memory: AsyncMemory) -> None:
        self.memory = memory
        self.alive: dict[str, str] = {}
        self.failures: list[BaseException] = []
        self.steps = [0] * 3
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._repeat, args=(self._write, who)) for who in range(2)]
        self._threads.append(threading.Thread(target=self._repeat, args=(self._search, 2)))

    def __enter__(self) -> _Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def goes_on(self) -> None:
        """Wait until every thread has done a few more steps."""
        before = list(self.steps)
        until(lambda: self.failures or all(now > then + 3 for now, then in zip(self.steps, before, strict=True)))

    def _call(self, name: str, *args: Any, **options: Any) -> Any:
        return asyncio.run(getattr(self.memory, name)(*args, **options))

    def _repeat(self, step: Any, who: int) -> None:
        number = 0
        try:
            while not self._stop.is_set():
                step(who, number)
                number += 1
                self.steps[who] = number
                time.sleep(0.005)
        except BaseException as error:
            self.failures.append(error)

    def _write(self, who: int, number: int) -> None:
        text = f"Worker {who} wrote note number {number} about boats."
        (item,) = self._call("add", text, user_id="ann", infer=False)["results"]
        if number % 3 == 1:
            text += " Twice."
            self._call("update", item["id"], text)
        if number % 3 == 2:
            self._call("delete", item["id"])
        else:
            self.alive[item["id"]] = text

    def _search(self, who: int, number: int) -> None:
        assert self._call("search", FACTS[0] + " 0", filters=ANN)["results"]


def test_swapping_under_the_load_of_coroutines(settings: Settings, tiny_version: EncoderVersion) -> None:
    """The store is swapped there and back and there while it is used: nothing fails, is lost, or mixes spaces."""
    memory = Memory(settings=settings)
    fill(memory, facts=tuple(f"{fact} {number}" for number in range(5) for fact in FACTS))
    with _Load(AsyncMemory(settings=settings)) as load:
        _swap(memory, tiny_version, settings)
        load.goes_on()
        rollback_agent(_agent(memory), Registry(settings), _load(settings))
        load.goes_on()
        _swap(memory, tiny_version, settings)
        load.goes_on()
    assert not load.failures, load.failures[0]
    assert load.alive
    found = {item["id"]: item["memory"] for item in memory.get_all(filters=ANN, top_k=100_000)["results"]}
    assert {key: text for key, text in found.items() if text.startswith("Worker")} == load.alive
    assert len(found) == 5 * len(FACTS) + len(load.alive)
    _assert_in_one_space(memory)


def test_reset_leaves_one_empty_store(settings: Settings, tiny_version: EncoderVersion) -> None:
    memory = Memory(settings=settings)
    ids = fill(memory)
    memory._upsert_entity("Oslo", "PLACE", ids[1], ANN)
    _swap(memory, tiny_version, settings)
    memory.reset()
    assert [index.count() for index in _agent(memory).live_indexes()] == [0, 0]
    assert memory.history(ids[0]) == []
    late = fill(memory, facts=FACTS[:1])
    # A rollback does not bring back what was reset.
    rollback_agent(_agent(memory), Registry(settings), _load(settings))
    assert [item["id"] for item in memory.get_all(filters=ANN)["results"]] == late
    _assert_in_one_space(memory)


def test_writes_reach_the_shadow_and_only_the_live_index_may_refuse_them(
    settings: Settings, tiny_version: EncoderVersion
) -> None:
    memory = Memory(settings=settings)
    agent = _agent(memory)
    agent.start_dual_write(tiny_version.id, "_s")
    ids = fill(memory)
    memory._upsert_entity("Oslo", "PLACE", ids[1], ANN)
    memory.update(ids[0], "Ann plays the viola.")
    memory.delete(ids[2])
    memory._upsert_entity("Oslo", "PLACE", ids[3], ANN)
    shadow = agent.open_indexes(tiny_version.id, "_s")
    assert [_rows(index) for index in shadow] == [_rows(index) for index in agent.live_indexes()]
    # A shadow that breaks does not break the agent.
    shadow[0].drop()
    late = fill(memory, facts=("Ann bought a red bicycle.",))
    assert memory.get(late[0]) is not None
    with pytest.raises(ValueError, match="not found"):
        agent.flush_dual_writes()
    with pytest.raises(ValueError, match="not found"):
        agent.switch_to(tiny_version.id, "_s")
    assert memory.vector_store.embedding_model_dims == 384
    agent.stop_dual_write()
    fill(memory, facts=("Ann sold it again.",))
    with pytest.raises(AgentError, match="serves"):
        agent.start_dual_write(agent.encoder_version, "")


def test_a_flip_lets_writes_end_and_ends_when_there_are_always_some(
    settings: Settings, tiny_version: EncoderVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = Memory(settings=settings)
    agent = _agent(memory)
    fill(memory)
    looked: list[bool] = []

    def busy(writes: WriteTracker) -> bool:
        looked.append(True)
        return len(looked) > 3

    monkeypatch.setattr(WriteTracker, "up_to_date", property(busy))
    swap_agent(agent, tiny_version.id, Encoder.load(tiny_version.path), Registry(settings), batch_size=4)
    assert len(looked) > 3
    _assert_in_one_space(memory)
    looked.clear()
    monkeypatch.setattr(WriteTracker, "up_to_date", False)
    assert rollback_agent(agent, Registry(settings), _load(settings)).flip_seconds > 0
    _assert_in_one_space(memory)


def test_an_unknown_version_is_a_clear_error(settings: Settings) -> None:
    memory = Memory(settings=settings)
    with pytest.raises(AgentError, match="v0099-00000000"):
        _agent(memory).start_dual_write("v0099-00000000", "_x")


def test_the_command_line_opens_what_the_agent_left(settings: Settings) -> None:
    memory = Memory(settings=settings)
    ids = fill(memory)
    memory.close()
    assert plugin.hins_open_agent("memoryos", settings, None) is None
    opened = plugin.hins_open_agent("mem0", settings, None)
    assert opened.get(ids[0])["memory"] == FACTS[0]
    assert _agent(opened).live_indexes()[0].count() == len(FACTS)
    opened.close()
