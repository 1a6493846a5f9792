"""The deep round as a decision: advice from a trial on the round's own traffic, and the round that is taken at once."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hins_adapter_mem0 import Memory
from pipeline_world import QUICK, play, sample

from hins_memory import training
from hins_memory.cli.tables import _advice, run_parts
from hins_memory.config import Settings
from hins_memory.errors import ConfigError, NotEnoughDataError
from hins_memory.evaluation import paired_bootstrap
from hins_memory.evaluation.gate import GateSettings
from hins_memory.loop.deep import Trial, deep_advice, deep_settings
from hins_memory.loop.pipeline import LoopSettings, Pipeline
from hins_memory.loop.split import conversation_digest
from hins_memory.swapping.plan import IndexPlan, SwapPlan
from hins_memory.training import TrainSettings
from hins_memory.types import TieredExample

PLAN = SwapPlan("mem0", "v1", "v1", (IndexPlan("memories", "mem0", 5000, 3600.0, 2**30),))
TOWER = LoopSettings(train=TrainSettings(mode="tower", learning_rate=1e-3))


#: A gate that asks for a gain on held-out questions and for nothing else.
OPEN = GateSettings(held_out_share=0.2, min_queries=5, max_general_loss=1.0, max_cutoff_shift=10.0)
AUTO = replace(
    QUICK,
    train=replace(QUICK.train, mode="tower", min_steps=40, batch_size=16, max_tokens=32),
    gate=OPEN,
    deep="auto",
    deep_gain=-1.0,
)


def trial(gain: float) -> Trial:
    noise = np.random.default_rng(0).normal(0, 0.1, size=400)
    return Trial(paired_bootstrap(0.4 + gain + noise, np.full(400, 0.4)), 100, step_seconds=2.0)


def test_a_deep_round_is_advised_where_the_whole_interval_is_above_the_threshold() -> None:
    found = deep_advice(lambda: trial(0.06), PLAN, TOWER, examples=320)
    assert found.advised
    assert "is above the 2 points" in found.why
    assert (found.records, found.embed_seconds, found.disk_bytes) == (5000, 3600.0, 2**30)
    # 13 batches of 320 examples and 80 of general retrieval, twice
    assert found.train_seconds == 2.0 * 26
    narrow = deep_advice(lambda: trial(0.021), PLAN, TOWER, 320)
    assert not narrow.advised, "the interval reaches below"
    # What it would gain and cost, and how it is taken, is said of both.
    for advice in (found, narrow):
        said = _advice(advice, taken=False)
        assert "points of nDCG@10 more" in said
        assert "5000 records embedded again in about 1.0 hours" in said
        assert "1024 MiB" in said
        assert "`hins run --mode lora`" in said
    assert not deep_advice(lambda: trial(0.06), PLAN, replace(TOWER, deep_gain=0.1), 320).advised


def test_a_round_whose_traffic_says_nothing_is_done_all_the_same() -> None:
    def too_little() -> Trial:
        raise NotEnoughDataError("3 questions are known.", "Wait.")

    found = deep_advice(too_little, PLAN, TOWER, examples=320)
    assert (found.advised, found.gain, found.train_seconds, found.records) == (False, None, None, 5000)
    assert "3 questions are known." in found.why


def test_a_learning_rate_is_that_of_the_mode_that_it_was_set_for() -> None:
    assert deep_settings(TOWER.train).rate == TrainSettings(mode="lora").rate


def test_what_is_no_choice_is_said() -> None:
    with pytest.raises(ConfigError, match="deep is 'often'"):
        LoopSettings(deep="often")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="deep_gain is 2"):
        LoopSettings(deep_gain=2)


@pytest.mark.slow
@pytest.mark.timeout(1800)  # four trainings
def test_searches_are_served_by_the_tower_while_the_deep_version_is_built(
    settings: Settings, shallow_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[tuple[str, list[TieredExample]]] = []
    train = training.train_encoder

    def noting(examples: Any, *args: Any, **options: Any) -> Any:
        if trained:
            # The tower has to gain, so that it serves; what the others learn is not the point here.
            options["settings"] = replace(options["settings"], epochs=0.1, min_steps=4)
        trained.append((options["settings"].mode, list(examples)))
        return train(examples, *args, **options)

    monkeypatch.setattr(training, "train_encoder", noting)
    served: set[str] = set()
    with contextlib.closing(Memory(embedder="hins", model=str(shallow_folder), settings=settings)) as memory:
        for conversation in sample(6):
            play(memory, conversation)
        asked, user = "Who plays an instrument?", sample(1)[0].id

        def searching(stage: str, done: int, total: int) -> None:
            if stage.startswith("build"):
                served.add(memory.embedding_model.encoder.version)
                assert memory.search(asked, filters={"user_id": user}, top_k=1)["results"]

        pipeline = Pipeline(settings, memory, loop=replace(AUTO, base=str(shallow_folder)), progress=searching)
        report = pipeline.run()
        assert report.swap is not None
        assert report.deep is not None
        # What so few steps teach need not be better than the tower; the swap is the same.
        assert report.deep.swap or pipeline.swap(report.deep.version, force=True).changed
        assert served == {report.version}
        assert report.deep.gate.incumbent == report.version
        assert memory.embedding_model.encoder.version == report.deep.version
        assert pipeline.rollback().version == report.version
    assert [mode for mode, _ in trained] == ["tower", "tower", "lora", "lora"]
    versions = {one.id: one.manifest for one in pipeline.registry.versions()}
    held_out = {group for group in report.gate.groups["candidate"]}
    for _, examples in trained[1:3]:
        digests = {conversation_digest(one.scope, one.conversation) for one in examples}
        assert digests <= {*versions[report.version].trained_conversations}
        assert not held_out & {one.scope.owner.key for one in examples}
    assert report.advice is not None
    assert report.to_dict()["advice"]["gain"]["queries"] == report.advice.gain.queries
    assert "It was taken" in str(run_parts(report))
