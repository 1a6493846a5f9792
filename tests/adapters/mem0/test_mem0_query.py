"""Swapping a real Mem0 to a version that changes queries only: no stored vector is touched, there and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hins_adapter_mem0 import Memory
from hins_adapter_mem0.attaching import agent_of
from mem0_world import ANN, FACTS, fill, texts

from hins_memory.config import Settings
from hins_memory.encoders.encoder import Encoder
from hins_memory.loop.pipeline import Pipeline
from hins_memory.registry.registry import EncoderVersion, Registry
from hins_memory.swapping import retire_agent, swap_agent

pytestmark = pytest.mark.slow


def _stored(memory: Any) -> dict[str, list[float]]:
    agent = agent_of(memory)
    assert agent is not None
    found: dict[str, list[float]] = {}
    for index in agent.live_indexes():
        ids = [record.id for page in index.pages(100) for record in page]
        found |= {f"{index.name}/{id}": vector.tolist() for id, vector in index.vectors(ids).items()}
    return found


def test_only_the_queries_change(
    settings: Settings, tiny_version: EncoderVersion, query_version: EncoderVersion
) -> None:
    memory = Memory(settings=settings)
    ids = fill(memory)
    memory._upsert_entity("Oslo", "PLACE", ids[1], ANN)
    agent: Any = agent_of(memory)
    tiny = Encoder.load(tiny_version.path)
    swap_agent(agent, tiny_version.id, tiny, Registry(settings))
    before = _stored(memory)
    pipeline = Pipeline(settings, memory)
    assert pipeline.plan(query_version.id).records == 0
    report = pipeline.swap(query_version.id, force=True)
    assert report.indexes == ()
    assert agent.encoder_version == query_version.id
    assert _stored(memory) == before
    # Queries are embedded anew, what is stored is embedded as before.
    question = "Which instrument does Ann play?"
    asked, plain = memory.embedding_model.embed(question, "search"), tiny.encode([question], role="query")[0]
    assert float(np.dot(asked, plain)) < 0.999
    stored = memory.embedding_model.embed(FACTS[0], "add")
    assert np.allclose(stored, tiny.encode([FACTS[0]])[0], atol=1e-6)
    late = fill(memory, facts=("Ann bought a red bicycle.",))[0]
    assert memory.search(FACTS[4], filters=ANN, threshold=0)["results"]
    # What was before shares its collections with what serves, so that retiring it drops nothing.
    assert retire_agent(agent, Registry(settings)) == []
    assert late in {item["id"] for item in memory.get_all(filters=ANN)["results"]}


def test_a_rollback_and_a_restart(
    settings: Settings, tiny_version: EncoderVersion, query_version: EncoderVersion
) -> None:
    memory = Memory(settings=settings)
    fill(memory)
    agent: Any = agent_of(memory)
    for version in (tiny_version, query_version):
        swap_agent(agent, version.id, Encoder.load(version.path), Registry(settings))
    late = fill(memory, facts=("Ann bought a red bicycle.",))[0]
    held = _stored(memory)
    memory.close()
    # A restart opens what is recorded: the same collections with the queries' encoder.
    again = Memory(settings=settings)
    assert again.embedding_model.encoder.version == query_version.id
    opened = _stored(again)
    # Qdrant rounds what it reads from its file.
    assert opened.keys() == held.keys()
    assert all(np.allclose(opened[key], held[key], atol=1e-6) for key in held)
    assert Pipeline(settings, again).rollback().version == tiny_version.id
    assert _stored(again) == opened
    assert texts(again.search("Ann bought a red bicycle.", filters=ANN))[0] == "Ann bought a red bicycle."
    assert late in {item["id"] for item in again.get_all(filters=ANN)["results"]}
