"""The whole loop on a real Mem0: what it says when there is too little, and that every memory survives a swap."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from child_process import run_python
from hins_adapter_mem0.memory import Memory
from pipeline_world import QUICK, play, sample

from hins_memory.config import Settings
from hins_memory.database.engine import open_database
from hins_memory.encoders import encoder
from hins_memory.errors import AgentError, NotEnoughDataError
from hins_memory.log.reader import LogReader
from hins_memory.log.writer import LogWriter
from hins_memory.loop.pipeline import Pipeline, public_texts
from hins_memory.loop.split import conversation_digest
from hins_memory.registry.registry import EncoderVersion
from hins_memory.training import TrainSettings
from hins_memory.types import Scope, ScopeLog

OPEN_AGAIN = """
import json, sys
from pathlib import Path
from hins_adapter_mem0.memory import Memory
from hins_memory.config import Settings

memory = Memory(embedder="hins", settings=Settings(home=Path(sys.argv[1]), project="test"), capture=False)
user = sys.argv[2]
stored = memory.get_all(filters={"user_id": user}, top_k=1000)["results"]
entities = memory.entity_store.list(filters={"user_id": user}, top_k=100)[0]
best = [memory.search(one["memory"], filters={"user_id": user}, top_k=1)["results"][0]["id"] for one in stored[:20]]
print(json.dumps({
    "version": memory.embedding_model.encoder.version if hasattr(memory.embedding_model, "encoder") else "",
    "ids": sorted(one["id"] for one in stored),
    "entities": sorted(row.payload["data"] for row in entities),
    "found_itself": sum(one["id"] == top for one, top in zip(stored, best)),
    "collections": sorted(c.name for c in memory.vector_store.client.get_collections().collections),
}))
"""


def test_an_empty_log_says_how_much_is_missing(settings: Settings) -> None:
    pipeline = Pipeline(settings)
    assert pipeline.status().log.retrievals == 0
    for stage in (pipeline.mine, pipeline.train):
        with pytest.raises(NotEnoughDataError, match="0 retrievals, 0 answers"):
            stage()
    with pytest.raises(NotEnoughDataError, match="No encoder was trained yet"):
        pipeline.gate()


def test_stages_that_need_an_agent_say_so(settings: Settings) -> None:
    with pytest.raises(AgentError, match="No agent was given"):
        Pipeline(settings).run()
    with pytest.raises(AgentError, match="not attached to this object"):
        Pipeline(settings, memory=object()).rollback()


@dataclass
class World:
    settings: Settings
    memory: Memory
    pipeline: Pipeline
    version: EncoderVersion


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, shallow_base: Path) -> Iterator[World]:
    settings = Settings(home=tmp_path_factory.mktemp("home"), project="test")
    memory = Memory(embedder="hins", settings=settings)
    for conversation in sample(4):
        play(memory, conversation)
    pipeline = Pipeline(settings, memory, loop=QUICK)
    yield World(settings, memory, pipeline, pipeline.train())
    memory.close()


def logs(settings: Settings) -> list[ScopeLog]:
    return list(LogReader(open_database(settings.database_url)).scope_logs())


@pytest.mark.slow
def test_training_takes_the_thresholds_of_the_agents_framework(world: World) -> None:
    measured = world.version.manifest.scores["cutoffs"]
    assert set(measured) == {"0.1", "0.5", "0.95"}, "those of Mem0"
    # without an agent, a scale that favours no framework
    scale = TrainSettings().score_thresholds
    assert {round(later - one, 6) for one, later in pairwise(scale)} == {0.1}


@pytest.mark.slow
def test_training_leaves_the_latest_conversation_out_and_the_gate_judges_on_it(world: World) -> None:
    digests = [conversation_digest(log.scope, name) for log in logs(world.settings) for name in log.conversations()]
    trained = world.version.manifest.trained_conversations
    held = set(digests) - set(trained)
    assert len(digests) == 4
    assert 0 < len(held) < 4
    report = world.pipeline.gate()
    assert report.candidate == world.version.id
    by_owner = {
        log.scope.owner.key: conversation_digest(log.scope, *log.conversations()) for log in logs(world.settings)
    }
    assert {by_owner[owner] for owner in report.groups["candidate"]} == held


@pytest.mark.slow
@pytest.mark.usefixtures("shallow_base")
def test_a_round_loads_each_model_once(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    load = encoder._load_model

    def counting(source: str, device: str | None) -> Any:
        loaded.append(source)
        return load(source, device)

    monkeypatch.setattr(encoder, "_load_model", counting)
    with contextlib.closing(Memory(embedder="hins", settings=settings)) as memory:
        for conversation in sample(2):
            play(memory, conversation)
        quick = replace(QUICK, train=replace(QUICK.train, epochs=0.1))
        report = Pipeline(settings, memory, loop=quick).run()
    assert report.gate.candidate == report.version
    assert len(loaded) == len(set(loaded)) <= 3


@pytest.mark.slow
def test_mining_keeps_users_apart(world: World) -> None:
    texts = {log.scope.user: {memory.text for memory in log.memories} for log in logs(world.settings)}
    public = set(public_texts())
    for example in world.pipeline.mine().examples:
        own = texts[example.scope.user]
        assert example.positive.text in own
        assert all(negative.text in own | public for negative in example.negatives)


@pytest.mark.slow
def test_a_mem0_started_twice_around_a_swap_finds_every_memory_again(world: World) -> None:
    memory, pipeline = world.memory, world.pipeline
    user = sample(1)[0].id
    stored = memory.get_all(filters={"user_id": user}, top_k=1000)["results"]
    # Mem0's own linking, with entities named by hand: extracting them wants a spaCy model that tests do not have.
    for one, name in zip(stored, ("Radka's ward", "the workshop in Luby"), strict=False):
        memory._upsert_entity(name, "PROPER", one["id"], {"user_id": user})
    before = memory.vector_store.collection_name

    report = pipeline.swap(force=True)
    assert report.changed
    assert {index.kind for index in report.indexes} == {"memories", "entities"}
    assert memory.vector_store.collection_name != before
    added = memory.add("Radka: I bought a canoe.", user_id=user, infer=False)["results"][0]["id"]
    memory.close()
    again = json.loads(run_in_another_process(world.settings, user))
    assert again["ids"] == sorted([*(one["id"] for one in stored), added])
    assert again["entities"] == ["Radka's ward", "the workshop in Luby"]
    assert again["found_itself"] >= 19
    assert sum(name.endswith("_entities") for name in again["collections"]) == 2

    world.memory = memory = Memory(embedder="hins", settings=world.settings)
    pipeline = Pipeline(world.settings, memory, loop=QUICK)
    back = pipeline.rollback()
    assert back.previous == world.version.id
    assert memory.vector_store.collection_name == before
    ids = {one["id"] for one in memory.get_all(filters={"user_id": user}, top_k=1000)["results"]}
    assert added in ids
    # In the memory's own words: the shallow encoder does not know what is asked for.
    found = memory.search("Radka: I bought a canoe!", filters={"user_id": user}, top_k=1)["results"]
    assert found[0]["id"] == added
    assert pipeline.status().current == ""


def run_in_another_process(settings: Settings, user: str) -> str:
    done = run_python(OPEN_AGAIN, str(settings.home), user)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_purged_user_is_in_no_later_training_set(world: World) -> None:
    gone = logs(world.settings)[0].scope.user
    LogWriter(open_database(world.settings.database_url)).purge(gone)
    owners = {example.scope for example in world.pipeline.mine([Scope(user=gone), *remaining(world)]).examples}
    assert owners
    assert gone not in {owner.user for owner in owners}


def remaining(world: World) -> list[Scope]:
    return [log.scope for log in logs(world.settings)]


def test_public_texts_name_their_speakers() -> None:
    assert len(public_texts()) > 500
    assert all(": " in text for text in public_texts())
