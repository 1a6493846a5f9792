"""The gate judges as Mem0 serves: its own search is replayed, with keyword scores of the live store."""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hins_adapter_mem0 import Memory
from hins_adapter_mem0.attaching import agent_of
from hins_adapter_mem0.recorder import stored_memories
from mem0_world import ANN, FACTS, fill
from pipeline_world import QUICK, play, sample

from hins_memory.config import Settings
from hins_memory.encoders.encoder import Encoder
from hins_memory.evaluation.gate import GateSettings
from hins_memory.evaluation.keyword_weight import KEYWORD_WEIGHTS
from hins_memory.loop.pipeline import Pipeline
from hins_memory.plugins import Ranking, ranking_of
from hins_memory.registry.registry import EncoderVersion, Registry
from hins_memory.types import Scope


def test_a_store_that_searches_by_cosine_alone_has_no_ranking_of_its_own(settings: Settings, tmp_path: Path) -> None:
    config = {"vector_store": {"provider": "faiss", "config": {"path": str(tmp_path / "faiss")}}}
    with contextlib.closing(Memory(config, settings=settings)) as memory:
        fill(memory)
        agent = agent_of(memory)
        assert agent is not None
        assert ranking_of(agent) is None


def _counted(memory: Any, query: str) -> dict[str, float]:
    """What keywords added to each result's cosine, by its id."""
    found = memory.search(query, filters=ANN, threshold=0.0, explain=True)["results"]
    return {one["id"]: one["score_details"]["bm25_score"] for one in found}


@pytest.mark.slow
@pytest.mark.usefixtures("shallow_base")
def test_a_version_says_how_much_keywords_count_until_a_rollback(
    settings: Settings, tiny_folder: Path, tmp_path: Path, postgresql_server: str
) -> None:
    shutil.copytree(tiny_folder, tmp_path / "tiny")
    version = Registry(settings).add(tmp_path / "tiny", {"base": "tiny", "keyword_weight": 0.25})
    store = {"provider": "pgvector", "config": {"connection_string": postgresql_server, "collection_name": "weighted"}}
    facts = ("Ann sails.", "Ann sails and sails and sails.", "Emil repairs wooden boats.")
    with contextlib.closing(Memory({"vector_store": store}, settings=settings)) as memory:
        once, often, other = fill(memory, facts=facts)
        own = _counted(memory, "sails")
        assert own[once] == pytest.approx(own[often], rel=0.3)
        pipeline = Pipeline(settings, memory, loop=QUICK)
        pipeline.swap(version.id, force=True)
        served = _counted(memory, "sails")
        assert served[often] == pytest.approx(0.25)
        # In proportion to PostgreSQL's ranks.
        agent = agent_of(memory)
        assert agent is not None
        ranks = {one.id: one.score for one in agent.binding.memories.keyword_search(query="sails", filters=ANN)}
        assert served[once] == pytest.approx(0.25 * ranks[once] / ranks[often])
        assert served[once] < 0.2
        # The recorder knows the store that Mem0 searches.
        assert {one.id for one in stored_memories(memory.vector_store)} == set(ranks) | {other}
        # The replay follows the weight that it is given.
        ranking = ranking_of(agent)
        assert ranking is not None
        found = [(once, 0.5), (often, 0.4)]
        ranked = ranking.rank(Scope(user="ann"), "sails", [found, found, found], [0.25, 0.05, None])
        assert ranked == [[often, once], [once, often], [once, often]]
        assert memory.search("wood", filters=ANN, threshold=0.0)["results"]
        pipeline.rollback()
        assert _counted(memory, "sails") == own


@pytest.mark.slow
@pytest.mark.usefixtures("shallow_base")
def test_a_replay_ranks_as_mem0_does_and_the_gate_reports_it(
    settings: Settings, tiny_version: EncoderVersion, postgresql_server: str
) -> None:
    # PostgreSQL's search by keyword needs no package beside it.
    store = {"provider": "pgvector", "config": {"connection_string": postgresql_server, "collection_name": "ranking"}}
    with contextlib.closing(Memory({"vector_store": store}, settings=settings)) as memory:
        ids = fill(memory)
        agent = agent_of(memory)
        assert agent is not None
        ranking = ranking_of(agent)
        assert isinstance(ranking, Ranking)
        assert ranking.signals == ("keywords",)
        encoder = memory.embedding_model.encoder
        for query in ("an amateur orchestra", "novels on the tram", "where does Ann live?"):
            cosines = encoder.encode(list(FACTS)) @ encoder.encode([query], role="query")[0]
            found = sorted(zip(ids, map(float, cosines), strict=True), key=lambda one: -one[1])
            served = memory.search(query, filters=ANN, capture=False, explain=True)["results"]
            assert ranking.rank(Scope(user="ann"), query, [found]) == [[one["id"] for one in served]]
            keywords = max(one["score_details"]["bm25_score"] for one in served)
            assert (keywords > 0) == ("where" not in query)
        # Other cosines, the same words: of two memories with equal cosines, the one that has the words is first.
        equal = [(ids[5], 0.5), (ids[0], 0.5)]
        ranked = ranking.rank(Scope(user="ann"), "an amateur orchestra", [equal, equal[:1]])
        assert ranked == [[ids[0], ids[5]], [ids[5]]]
        # The last one is held out for the gate, and the one before it is what a weight is fitted on.
        for conversation, questions in zip(sample(5), (1000, 1000, 1000, 26, 12), strict=True):
            play(memory, conversation, questions)
        pipeline = Pipeline(settings, memory, loop=replace(QUICK, gate=GateSettings(0.05, min_queries=5)))
        report = pipeline.gate(tiny_version.id)
        trained = pipeline.train()
        assert trained.manifest.keyword_weight in KEYWORD_WEIGHTS
        assert Encoder.load(trained.path).keyword_weight == trained.manifest.keyword_weight
    rule = next(rule for rule in report.rules if rule.name == "as_served")
    assert "with keywords beside the cosine (keyword weight: its own sum, before: its own sum)" in rule.sentence
    assert report.served_gain is not None
    assert rule.value == report.served_gain.high
    # 32 random dimensions against an encoder that knows words
    assert not rule.passed
