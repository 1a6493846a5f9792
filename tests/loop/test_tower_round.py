"""A round by default on a real Mem0, of a tower: trained, gated and swapped without a stored vector being touched."""

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
from hins_memory.evaluation.gate import GateSettings
from hins_memory.loop.pipeline import Pipeline
from hins_memory.training.fit.callbacks import CheckpointCallback

pytestmark = pytest.mark.slow

#: A gate that lets everything pass: what is learned in few steps is not the point here.
OPEN = GateSettings(held_out_share=0.2, min_queries=5, max_general_loss=1.0, max_cutoff_shift=10.0)
TOWER = replace(QUICK, train=replace(QUICK.train, mode="auto", min_steps=20), gate=OPEN, deep="never")


def stored(memory: Any) -> dict[str, list[float]]:
    agent = agent_of(memory)
    assert agent is not None
    found: dict[str, list[float]] = {}
    for index in agent.live_indexes():
        ids = [record.id for page in index.pages(100) for record in page]
        found |= {f"{index.name}/{name}": vector.tolist() for name, vector in index.vectors(ids).items()}
    return found


def test_two_rounds_touch_no_stored_vector_and_both_can_be_taken_back(settings: Settings, shallow_folder: Path) -> None:
    with contextlib.closing(Memory(embedder="hins", model=str(shallow_folder), settings=settings)) as memory:
        for conversation in sample(4):
            play(memory, conversation)
        before, base = stored(memory), memory.embedding_model.encoder
        pipeline = Pipeline(settings, memory, loop=replace(TOWER, base=str(shallow_folder)))
        rounds = []
        for _ in range(2):
            report = pipeline.run()
            # What so few steps teach need not pass; the swap is the same.
            swapped = report.swap or pipeline.swap(report.version, force=True)
            assert swapped.indexes == ()
            assert memory.embedding_model.encoder.version == report.version
            assert stored(memory) == before
            assert report.mode == "tower"
            rounds.append(pipeline.registry.get(report.version).manifest)
        first, second = rounds
        assert (first.mode, first.document_space) == ("tower", base.space)
        # The second begins as the documents' encoder again, not as the first tower.
        assert (second.base, second.document_space) == (base.version, base.space)
        asked = "Who plays an instrument?"
        vector = memory.embedding_model.embed(asked, "search")
        assert float(np.dot(vector, base.encode([asked], role="query")[0])) < 0.9999
        assert np.allclose(memory.embedding_model.embed(asked, "add"), base.encode([asked])[0], atol=1e-6)
        assert pipeline.rollback().version == report.gate.incumbent
        assert stored(memory) == before
        follower = Memory(embedder="hins", settings=settings, capture=False)
        with contextlib.closing(follower):
            assert follower.embedding_model.encoder.version == report.gate.incumbent
        assert not [path for path in settings.training.iterdir() if path.is_dir()], "no text of the log is left behind"


def test_a_cut_round_goes_on_with_its_stored_vectors(
    settings: Settings, shallow_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A checkpoint every five steps in the place of every minute.
    monkeypatch.setattr(CheckpointCallback, "_due", lambda self, state: state.global_step % 5 == 0)
    with contextlib.closing(Memory(embedder="hins", model=str(shallow_folder), settings=settings)) as memory:
        for conversation in sample(4):
            play(memory, conversation)
        loop = replace(TOWER, base=str(shallow_folder), train=replace(TOWER.train, epochs=0.1, min_steps=10))

        def cut(stage: str, done: int, total: int) -> None:
            if stage == "train" and done == 7:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            Pipeline(settings, memory, loop=loop, progress=cut).train()
        steps: list[int] = []
        pipeline = Pipeline(settings, memory, loop=loop, progress=lambda stage, done, total: steps.append(done))
        resumed = pipeline.train(resume=True)
        assert steps[0] == 6
        whole = pipeline.train()
        texts = ["Who plays an instrument?"]
        found, expected = (Encoder.load(one.path).encode(texts, role="query") for one in (resumed, whole))
        assert np.allclose(found, expected, atol=1e-5)
