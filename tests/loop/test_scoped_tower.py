"""A tower of one user on a real Mem0: from that user's log alone, for that user's searches alone."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hins_adapter_mem0 import Memory
from pipeline_world import play, sample
from test_tower_round import TOWER, stored
from typer.testing import CliRunner

from hins_memory.cli import app
from hins_memory.config import Settings
from hins_memory.data.examples import read_examples
from hins_memory.data.stored_vectors import StoredVectors
from hins_memory.database.engine import open_database
from hins_memory.errors import ConfigError, NotEnoughDataError, SwapError
from hins_memory.log.capture import flush_all
from hins_memory.log.reader import LogReader
from hins_memory.loop.pipeline import LoopSettings, Pipeline
from hins_memory.loop.purge import purge_person
from hins_memory.loop.scoped import ScopedPipeline
from hins_memory.types import Scope

pytestmark = pytest.mark.slow

ASKED = "Who plays an instrument?"
#: seconds until a process looks again at what serves a scope, in the place of 0.4
LOOKED_UP = 0.05


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("hins_memory.registry.towers._FRESH_SECONDS", "hins_memory.sdk.binding_agent.REFRESH_SECONDS"):
        monkeypatch.setattr(name, LOOKED_UP)


@pytest.fixture
def loop(shallow_folder: Path) -> LoopSettings:
    return replace(TOWER, base=str(shallow_folder))


@pytest.fixture
def memory(settings: Settings, shallow_folder: Path) -> Iterator[Any]:
    """A Mem0 that three users have asked, each of whom has one conversation; its store is faiss."""
    config = {"vector_store": {"provider": "faiss", "config": {"path": str(settings.root / "faiss")}}}
    memory = Memory(config, embedder="hins", model=str(shallow_folder), settings=settings)
    with contextlib.closing(memory):
        for conversation in sample(3):
            play(memory, conversation)
        yield memory


def searched(memory: Any, user: str) -> str:
    """Return the version that embeds a user's searches, as the log records it."""
    memory.search(ASKED, filters={"user_id": user})
    flush_all()
    (log,) = LogReader(open_database(memory._hins_agent.encoders.registry.settings.database_url)).scope_logs(
        [Scope(user=user)]
    )
    return max(log.retrievals, key=lambda one: one.time).encoder_version


def hins(settings: Settings, *arguments: str) -> Any:
    options = ["--home", str(settings.home), "--project", settings.project, *arguments, "--json"]
    done = CliRunner().invoke(app, options)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def refused(settings: Settings, *arguments: str) -> str:
    done = CliRunner().invoke(app, ["--home", str(settings.home), "--project", settings.project, *arguments])
    assert done.exit_code == ConfigError.exit_code
    return " ".join(done.output.split())


def test_a_users_tower_serves_that_user_alone_and_touches_no_vector(
    settings: Settings, memory: Any, loop: LoopSettings
) -> None:
    ann, bob = (one.id for one in sample(2))
    before, common = stored(memory), memory.embedding_model.encoder
    assert "that scope's log" in refused(settings, "run", "--owner", ann, "--mode", "lora")
    assert "that scope's log" in refused(settings, "run", "--owner", ann, "--deep", "auto")
    pipeline = ScopedPipeline(Scope(user=ann), settings, memory, loop=loop)
    report = pipeline.run()
    assert report.gate.incumbent == common.version
    assert set(report.gate.groups["candidate"]) == {Scope(user=ann).key}, "judged on that user's questions"
    swapped = report.swap or pipeline.swap(report.version, force=True)
    assert (swapped.agent_key, swapped.previous, swapped.indexes) == (f"user={ann}", common.version, ())
    assert pipeline.registry.get(report.version).manifest.scope == f"user={ann}"
    time.sleep(LOOKED_UP)
    assert searched(memory, ann) == report.version
    assert searched(memory, bob) == common.version
    assert stored(memory) == before
    assert pipeline.registry.current_id() == ""
    own = memory._hins_agent.load_scoped(Scope(user=ann)).encoder
    whole = pipeline._load(report.version)
    assert np.allclose(own.encode([ASKED], role="query"), whole.encode([ASKED], role="query"), atol=1e-5)
    assert float(own.encode([ASKED], role="query")[0] @ common.encode([ASKED], role="query")[0]) < 0.9999
    # It is not everyone's, whatever is asked for.
    everyone = Pipeline(settings, memory, loop=loop)
    with pytest.raises(NotEnoughDataError, match="No encoder was trained yet"):
        everyone.swap(force=True)
    with pytest.raises(ConfigError, match="not for everyone"):
        everyone.swap(report.version, force=True)
    # Another process, which has no agent open, takes it back; this one follows.
    assert hins(settings, "status")["scoped"][0]["serves"] is True
    assert hins(settings, "encoders", "list")["versions"][0]["serves_scope"] is True
    assert hins(settings, "rollback", "--owner", ann)["version"] == common.version
    time.sleep(LOOKED_UP)
    assert searched(memory, ann) == common.version
    hins(settings, "rollback", "--owner", ann)
    time.sleep(LOOKED_UP)
    assert searched(memory, ann) == report.version
    assert hins(settings, "swap", "--retire", "--owner", ann) == {"retired": [report.version]}
    time.sleep(LOOKED_UP)
    assert searched(memory, ann) == common.version
    # What is purged is not served, and not kept.
    pipeline.swap(report.version, force=True)
    path = pipeline.registry.get(report.version).path
    assert str(path) in purge_person(settings, ann).deleted
    assert not path.exists()
    assert pipeline.registry.versions() == pipeline.registry.scoped_versions() == []
    time.sleep(LOOKED_UP)
    assert searched(memory, ann) == common.version


def test_towers_retire_when_the_vectors_change(
    settings: Settings, memory: Any, loop: LoopSettings, caplog: Any
) -> None:
    ann, _ = (one.id for one in sample(2))
    # What either learns is not the point here.
    loop = replace(loop, train=replace(loop.train, epochs=0.1, min_steps=2))
    pipeline = ScopedPipeline(Scope(user=ann), settings, memory, loop=loop)
    own = pipeline.train()
    pipeline.swap(own.id, force=True)
    deep = Pipeline(settings, memory, loop=replace(loop, train=replace(loop.train, mode="lora")))
    common = deep.train()
    deep.swap(common.id, force=True)
    assert f"common encoder serves them: user={ann}" in caplog.text
    assert not deep.status().scoped[0].serves
    assert searched(memory, ann) == common.id
    with pytest.raises(SwapError, match="train a tower for it again"):
        pipeline.swap(own.id, force=True)
    deep.rollback()
    time.sleep(LOOKED_UP)
    assert searched(memory, ann) == own.id


def test_nothing_that_a_tower_is_trained_on_is_of_another_scope(
    settings: Settings, memory: Any, loop: LoopSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The user has two dozen questions.
    monkeypatch.setattr("hins_memory.loop.data._DECIDING_QUERIES", 1)
    ann, *others = sample(3)
    # A search that found what is somebody else's, and the most that the settings share.
    memory.add("Zanzibar is a secret of all agents.", user_id="zoe", agent_id="bot", infer=False)
    found = memory.search("Zanzibar?", filters={"agent_id": "bot"})
    memory.answered(found["retrieval_id"], "Zanzibar is a secret of all agents.")
    loop = replace(loop, mine=replace(loop.mine, share_scopes=True), train=replace(loop.train, patience=2))
    loop = replace(loop, gate=replace(loop.gate, held_out_share=0.1, min_queries=2))

    read: set[str] = set()
    owners: set[str] = set()
    stored: list[int] = []

    def cut(stage: str, done: int, total: int) -> None:
        """Read everything that the training reads, and end it."""
        if stage != "train":
            return
        (run,) = settings.training.glob("run-*")
        for one in read_examples(run / "examples.parquet"):
            owners.add(one.scope.owner.key)
            read.update((one.positive.query, one.positive.text, *(negative.text for negative in one.negatives)))
        for file in run.rglob("*.json*"):
            for line in file.read_text(encoding="utf-8").splitlines():
                read.update(strings(json.loads(line)))
        stored.append(len(StoredVectors(run / "stored").vectors(64)))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ScopedPipeline(Scope(user=ann.id), settings, loop=loop, progress=cut).train()
    assert owners == {f"user={ann.id}"}
    said = {f"{turn.speaker}: {turn.text}" for one in others for turn in one.turns}
    said |= {question.question for one in others for question in one.questions}
    assert {text for text in read if text in said or "Zanzibar" in text} == set()
    own = {question.question for question in ann.questions}
    assert len(own & read) > len(own) / 2
    assert stored == [len(ann.turns)]


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)


def test_a_scope_without_traffic_is_told_so(settings: Settings, memory: Any, loop: LoopSettings) -> None:
    with pytest.raises(NotEnoughDataError, match="user=nobody has 0 queries with a known positive"):
        ScopedPipeline(Scope(user="nobody"), settings, memory, loop=loop).train()
