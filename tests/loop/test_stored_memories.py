"""What a live agent has stored is not embedded again when a round reads the log."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hins_adapter_mem0 import Memory
from hins_adapter_mem0.attaching import agent_of
from pipeline_world import QUICK, play, sample

from hins_memory.config import Settings
from hins_memory.encoders.encoder import Encoder
from hins_memory.loop.pipeline import Pipeline
from hins_memory.loop.stored_memories import stored_memories
from hins_memory.plugins.protocols import Record

pytestmark = pytest.mark.slow


def test_vectors_come_from_the_store_where_it_has_the_same_text(
    settings: Settings, shallow_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded: list[str] = []
    forward = Encoder._forward

    def listed(self: Encoder, texts: list[str], role: Any, batch_size: int) -> Any:
        embedded.extend(texts if role == "document" else [])
        return forward(self, texts, role, batch_size)

    with contextlib.closing(Memory(embedder="hins", model=str(shallow_folder), settings=settings)) as memory:
        for conversation in sample(2):
            play(memory, conversation)
        agent: Any = agent_of(memory)
        encoder = memory.embedding_model.encoder
        index = agent.live_indexes()[0]
        compared = {one.id: one.text for one in index.sample(16)}
        changed, damaged = [one for one in next(index.pages(100)) if one.id not in compared][:2]
        # One that was changed since by a process that records nothing, and one whose vector is not one.
        other = Record(changed.id, "Something else.", changed.payload | {"data": "Something else."})
        index.upsert([other], _unit(encoder.dim))
        index.upsert([damaged], np.zeros((1, encoder.dim), dtype=np.float32))
        assert stored_memories(agent, Encoder.load("stock")) is None
        encoder._cache.clear()
        monkeypatch.setattr(Encoder, "_forward", listed)
        with Pipeline(settings, memory, loop=replace(QUICK, base=str(shallow_folder)))._read_log() as evidence:
            owners = [one.owner for one in evidence if one.owner is not None]
        monkeypatch.undo()
        texts = {text for owner in owners for text in owner.texts}
        assert len(texts) > 40
        assert set(embedded) == {changed.text, damaged.text, *compared.values()}
        for owner in owners:
            assert np.allclose(owner.vectors, encoder.encode(owner.texts), atol=1e-3)


def _unit(dim: int) -> Any:
    return np.eye(1, dim, dtype=np.float32)
