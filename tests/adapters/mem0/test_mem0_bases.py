"""A Mem0 that goes from the stock encoder to bases of other makes and lengths, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hins_adapter_mem0 import Memory
from mem0_world import ANN, FACTS, fill, texts
from tiny_bases import INSTRUCTION, build_bge_m3, build_qwen3_embedding

from hins_memory.config import Settings
from hins_memory.encoders.encoder import Encoder
from hins_memory.loop.pipeline import Pipeline
from hins_memory.registry.registry import Registry


def _assert_served_by(pipeline: Pipeline, memory: Any, version: str, dim: int) -> Encoder:
    """Check that everything stored is found by, and embedded with, the encoder of a version; return it."""
    assert sorted(texts(memory.get_all(filters=ANN))) == sorted(FACTS)
    assert set(texts(memory.search(FACTS[0], filters=ANN, threshold=0.0))) <= set(FACTS)
    encoder: Encoder = memory.embedding_model.encoder
    assert (encoder.version, encoder.dim) == (version, dim)
    index = pipeline._agent().live_indexes()[0]
    rows = {record.id: dict(record.payload) for page in index.pages(3) for record in page}
    vectors = index.vectors(list(rows))
    for name, payload in rows.items():
        expected = encoder.encode([payload["data"]])[0]
        assert len(vectors[name]) == dim
        assert float(np.dot(expected, vectors[name])) > 0.999
    return encoder


@pytest.mark.slow
def test_the_dimension_follows_the_base(settings: Settings, tmp_path: Path) -> None:
    bases = {"bge-m3": build_bge_m3(tmp_path / "bge-m3"), "qwen3": build_qwen3_embedding(tmp_path / "qwen3")}
    registry = Registry(settings)
    versions = {name: registry.add(folder, {"base": name}) for name, folder in bases.items()}
    memory = Memory(settings=settings)
    fill(memory)
    pipeline = Pipeline(settings, memory)
    pipeline.swap(versions["bge-m3"].id, force=True)
    _assert_served_by(pipeline, memory, versions["bge-m3"].id, 24)
    assert texts(memory.search(FACTS[2], filters=ANN))[0] == FACTS[2]
    pipeline.swap(versions["qwen3"].id, force=True)
    encoder = _assert_served_by(pipeline, memory, versions["qwen3"].id, 32)
    asked = np.asarray(memory.embedding_model.embed("Who?", "search"))
    assert np.allclose(asked, encoder.encode([f"{INSTRUCTION}Who?"])[0], atol=1e-2)
    pipeline.rollback()
    _assert_served_by(pipeline, memory, versions["bge-m3"].id, 24)
