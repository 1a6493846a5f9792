"""Swapping a MemoryOS store to a version that changes queries only: no file is written, there and back."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hins_adapter_memoryos import Memoryos
from llm_server import LLMServer
from memoryos_world import PAIRS, agent_of, ask, assert_in_one_space, options, pages, talk
from towers import write_tower

from hins_memory.config import Settings
from hins_memory.database.engine import open_database
from hins_memory.encoders.encoder import Encoder
from hins_memory.log.capture import flush_all
from hins_memory.log.reader import LogReader
from hins_memory.loop.pipeline import Pipeline
from hins_memory.registry.registry import EncoderVersion, Registry
from hins_memory.swapping import retire_agent, swap_agent
from hins_memory.types import Scope

pytestmark = pytest.mark.slow


def _files(root: Path) -> dict[str, tuple[int, bytes]]:
    """Every file of the store, with when it was written."""
    found = (path for path in root.rglob("*.json") if ".hins" not in path.parts)
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in found}


def _memory(llm: LLMServer, root: Path, settings: Settings) -> Any:
    return Memoryos(**options(llm, root, "ann", mid_term_heat_threshold=2.9), settings=settings)


def test_only_the_queries_change(
    settings: Settings, llm: LLMServer, tmp_path: Path, tiny_version: EncoderVersion, query_version: EncoderVersion
) -> None:
    root, tiny = tmp_path / "store", Encoder.load(tiny_version.path)
    memory = _memory(llm, root, settings)
    talk(memory)
    agent = agent_of(memory)
    swap_agent(agent, tiny_version.id, tiny, Registry(settings))
    before = _files(root)
    pipeline = Pipeline(settings, memory)
    assert pipeline.plan(query_version.id).records == 0
    report = pipeline.swap(query_version.id, force=True)
    assert (report.version, report.indexes) == (query_version.id, ())
    assert _files(root) == before
    assert_in_one_space(memory, Encoder.load(query_version.path))
    part = next(part for part in agent.parts if part.kind == "mid")
    assert part.binding.version == query_version.id
    assert float(np.dot(part.embed(PAIRS[0][0]), tiny.encode([PAIRS[0][0]], role="query")[0])) < 0.999
    # What is said afterwards is stored in the same space, and the way back writes nothing either.
    talk(memory, [("My bicycle is red.", "A fine colour."), ("It has a basket.", "Practical.")])
    assert_in_one_space(memory, Encoder.load(query_version.path))
    before = _files(root)
    assert pipeline.rollback().version == tiny_version.id
    assert _files(root) == before
    assert pages(ask(memory, "My bicycle is red."))[0] == "My bicycle is red."


def test_a_restart_and_the_vectors_before_the_swap(
    settings: Settings, llm: LLMServer, tmp_path: Path, tiny_version: EncoderVersion, query_version: EncoderVersion
) -> None:
    root, tiny = tmp_path / "store", Encoder.load(tiny_version.path)
    memory = _memory(llm, root, settings)
    talk(memory)
    agent = agent_of(memory)
    registry = Registry(settings)
    for version in (tiny_version, query_version):
        swap_agent(agent, version.id, Encoder.load(version.path), registry)
    before = _files(root)
    del memory, agent
    again = _memory(llm, root, settings)
    assert agent_of(again).encoder_version == query_version.id
    assert_in_one_space(again, Encoder.load(query_version.path))
    assert _files(root) == before
    # To the stock encoder, and back to the first of the two that share their vectors: they are still there.
    stock = Encoder.load()
    swap_agent(agent_of(again), stock.version, stock, registry)
    assert_in_one_space(again, stock)
    report = swap_agent(agent_of(again), tiny_version.id, tiny, registry)
    assert sum(index.written for index in report.indexes) == 0
    assert_in_one_space(again, tiny)
    retire_agent(agent_of(again), registry)
    assert_in_one_space(again, tiny)


def test_a_users_own_tower_embeds_that_users_searches(
    settings: Settings, llm: LLMServer, tmp_path: Path, tiny_version: EncoderVersion
) -> None:
    tiny = Encoder.load(tiny_version.path)
    memory = _memory(llm, tmp_path / "store", settings)
    talk(memory)
    agent = agent_of(memory)
    registry = Registry(settings)
    swap_agent(agent, tiny_version.id, tiny, registry)
    write_tower(tiny_version.path, tmp_path / "tower", shift=0.3)
    own = registry.add(tmp_path / "tower", {"mode": "tower", "document_space": tiny.space, "scope": "user=ann"})
    registry.serve_scope(own.id)
    time.sleep(0.5)
    ask(memory, PAIRS[0][0])
    flush_all()
    (log,) = LogReader(open_database(settings.database_url)).scope_logs()
    assert max(log.retrievals, key=lambda one: one.time).encoder_version == own.id
    part = next(part for part in agent.parts if part.kind == "mid")
    whole = Encoder.load(own.path)
    assert np.allclose(part.embed(PAIRS[0][0]), whole.encode([PAIRS[0][0]], role="query")[0], atol=1e-5)
    assert part.binding.version == tiny_version.id
    assert_in_one_space(memory, tiny)
    registry.roll_back_scope(Scope(user="ann"))
    time.sleep(0.5)
    assert part.version == tiny_version.id
    memory.close()
