"""What the contract suite does not see of CrewAI: roles, its ranking, several sources, and what a crew stores later."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("crewai", reason="needs an environment with the extra crewai")

from crewai import LLM
from crewai.memory.unified_memory import Memory
from hins_adapter_crewai import HinsEmbedder
from hins_adapter_crewai.plugin import plugin

from hins_memory.config import Settings
from hins_memory.database.engine import open_database
from hins_memory.log.capture import flush_all
from hins_memory.log.reader import LogReader
from hins_memory.training import TrainSettings
from hins_memory.types import Scope

GIVEN: dict[str, Any] = {"scope": "/notes", "categories": ["people"]}


@pytest.fixture
def memory(tiny_folder: Path, settings: Settings, tmp_path: Path) -> Any:
    made = Memory(
        llm=LLM(model="openai/none", api_key="unused", base_url="http://127.0.0.1:9/v1"),
        embedder=HinsEmbedder(tiny_folder),
        storage=str(tmp_path / "memory"),
        consolidation_threshold=1.0,
        exploration_budget=0,
    )
    return plugin.hins_attach(made, {"settings": settings})


def test_its_ranking_is_the_order_of_recall(memory: Any) -> None:
    for number in range(6):
        memory.remember(f"Person {number} is {'tall ' * number}.", importance=number % 3 / 2, **GIVEN)
    agent = plugin.hins_agent(memory)
    assert agent is not None
    encoder, index = agent.current.encoder, agent.live_indexes()[0]
    (query,) = encoder.encode(["Who is tall?"], role="query")
    cosines = {id_: float(vector @ query) for id_, vector in index.vectors(index.ids()).items()}
    found = sorted(cosines.items(), key=lambda pair: -pair[1])
    matches = memory.recall("Who is tall?")
    ranked = agent.ranking.rank(Scope(agent=agent.store_id), "Who is tall?", [found])[0]
    assert ranked == [match.record.id for match in matches]
    assert ranked != [id_ for id_, _ in found], "importance counts"
    best = max(matches, key=lambda match: match.score)
    similarity = 1 / (1 + 2 - 2 * cosines[best.record.id])
    expected = 0.5 * similarity + 0.3 + 0.2 * best.record.importance
    assert math.isclose(best.score, expected, abs_tol=1e-3), "queries are embedded as queries"


def test_a_threshold_that_is_turned_off_stops_no_round(memory: Any) -> None:
    agent = plugin.hins_agent(memory)
    assert agent is not None
    assert TrainSettings(score_thresholds=agent.score_thresholds).score_thresholds == (0.98,)


def test_sources_are_owners_and_what_is_stored_in_the_background_is_recorded(memory: Any, settings: Settings) -> None:
    memory.remember_many(["Ann plays the cello."], importance=0.5, source="ann", private=True, **GIVEN)
    memory.remember_many(["The office opens at nine."], importance=0.5, **GIVEN)
    asked = {user: memory.recall("Who plays?", source=user) for user in ("ann", None)}
    assert [len(found) for found in asked.values()] == [2, 1]
    memory.forget(scope="/notes")
    assert memory.list_records() == []
    plugin.hins_detach(memory)
    assert flush_all()
    logs = {log.scope.user: log for log in LogReader(open_database(settings.database_url)).scope_logs()}
    found = {user: [one.text for item in log.retrievals for one in item.results] for user, log in logs.items()}
    assert found == {"ann": ["Ann plays the cello."], "": ["The office opens at nine."]}
    assert {user: (log.memories, log.deleted) for user, log in logs.items()} == {"ann": ((), 1), "": ((), 1)}
