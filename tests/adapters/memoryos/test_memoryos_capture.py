"""What the log knows of a Memoryos: turns, pages, segments, knowledge, retrievals with scores, answers; no visits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hins_adapter_memoryos import Memoryos, memory_id
from hins_adapter_memoryos.attaching import attach
from llm_server import LLMServer
from memoryos_world import PAIRS, ask, logged, options, own_memory, talk

from hins_memory.config import Settings
from hins_memory.encoders.encoder import Encoder
from hins_memory.errors import ConfigError
from hins_memory.mining import mine
from hins_memory.types import Scope, ScopeLog

SCOPE = Scope(user="ann", agent="default_assistant_profile")
QUERY = "Which instrument do I play?"


def _log(settings: Settings) -> ScopeLog:
    (log,) = logged(settings)
    return log


def _texts(log: ScopeLog, prefix: str) -> dict[str, Any]:
    return {memory.text: memory for memory in log.memories if memory.id.startswith(prefix)}


@pytest.mark.slow
def test_what_is_said_and_stored_is_in_the_log(settings: Settings, llm: LLMServer, tmp_path: Path) -> None:
    memory = Memoryos(**options(llm, tmp_path, mid_term_heat_threshold=2.9), settings=settings)
    talk(memory)
    memory.close()
    log = _log(settings)
    assert log.scope == SCOPE
    said = [(turn.speaker, turn.text) for turn in log.turns]
    assert said == [pair for user, agent in PAIRS for pair in (("user", user), ("assistant", agent))]
    stored = _texts(log, "page_")
    assert list(stored) == [f"User: {user} Assistant: {agent}" for user, agent in PAIRS[:5]]
    turns = {turn.id: turn.text for turn in log.turns}
    for (user, agent), page in zip(PAIRS, stored.values(), strict=False):
        assert [turns[one] for one in page.turn_ids] == [user, agent]
        assert (page.speaker, page.conversation) == ("user", log.scope.key)
    summaries = _texts(log, "session_")
    assert set(summaries) == {one["summary"] for one in memory.mid_term_memory.sessions.values()}
    for session in memory.mid_term_memory.sessions.values():
        topics = {stored[f"User: {p['user_input']} Assistant: {p['agent_response']}"].topic for p in session["details"]}
        assert topics == {summaries[session["summary"]].topic}
        assert session["id"] in topics.pop()
    known = _texts(log, "knowledge_")
    assert {text: one.speaker for text, one in known.items()} == {
        "- Plays the cello": "user",
        "- Explained Bach": "assistant",
        "- Grows vegetables": "user",
    }
    # Two pages of the cello were hot together; each learned thing comes from all their turns.
    assert [turns[one] for one in known["- Plays the cello"].turn_ids] == [text for pair in PAIRS[:2] for text in pair]


@pytest.mark.slow
def test_a_retrieval_with_its_lists_scores_and_answer(
    settings: Settings, llm: LLMServer, tmp_path: Path, stock_encoder: Encoder
) -> None:
    memory = Memoryos(**options(llm, tmp_path, mid_term_heat_threshold=2.9), settings=settings)
    talk(memory)
    found = ask(memory, QUERY)
    assert memory.get_response(QUERY) == "You play the cello."
    memory.feedback(memory_id(found["retrieved_user_knowledge"][0]), "positive", found["retrieval_id"])
    with pytest.raises(ConfigError):
        memory.feedback("x", "so-so")
    memory.answered(found["retrieval_id"], "The cello.")
    memory.close()
    log = _log(settings)
    first, second = log.retrievals
    assert first.id == found["retrieval_id"]
    lists = [found[name] for name in found if isinstance(found[name], list)]
    assert len(lists) == 3
    assert all(lists)
    assert {result.memory_id for result in first.results} == {memory_id(entry) for one in lists for entry in one}
    assert first.encoder_version == stock_encoder.version
    scores = [result.score for result in first.results]
    assert scores == sorted(scores, reverse=True)
    vectors = stock_encoder.encode([result.text for result in first.results])
    assert np.allclose(scores, vectors @ stock_encoder.encode([QUERY], role="query")[0], atol=1e-5)
    stored = {one.id: one.text for one in log.memories}
    assert all(stored[result.memory_id] == result.text for result in first.results)
    assert {(one.retrieval_id, one.text) for one in log.answers} == {
        (second.id, "You play the cello."),
        (first.id, "The cello."),
    }
    assert [(one.polarity, one.retrieval_id) for one in log.feedback] == [("POSITIVE", first.id)]


@pytest.mark.slow
def test_capture_visits_nothing(settings: Settings, llm: LLMServer, tmp_path: Path) -> None:
    own = own_memory(llm, tmp_path / "own")
    ours = own_memory(llm, tmp_path / "ours")
    attach(ours, settings=settings)
    for memory in (own, ours):
        talk(memory)
        ask(memory, QUERY)
        ask(memory, PAIRS[3][0])
        memory.get_response(QUERY)

    def visits(memory: Any) -> Any:
        sessions = json.loads(Path(memory.mid_term_memory.file_path).read_text(encoding="utf-8"))["sessions"].values()
        return [(one["summary"], one["N_visit"], one["L_interaction"], one["access_count_lfu"]) for one in sessions]

    assert visits(own) == visits(ours)
    assert max(count for _, count, _, _ in visits(ours)) == 2
    # Captured with MemoryOS's own encoder, whose files stay as MemoryOS writes them.
    assert "hins" not in Path(ours.mid_term_memory.file_path).read_text(encoding="utf-8")
    ours.close()
    assert [one.encoder_version for one in _log(settings).retrievals] == ["", "", ""]
    assert all(result.score > 0.1 for one in _log(settings).retrievals for result in one.results)


def test_what_was_stored_before_is_recorded_when_it_is_found(
    settings: Settings, llm: LLMServer, tmp_path: Path
) -> None:
    memory = own_memory(llm, tmp_path)
    talk(memory)
    attach(memory, settings=settings)
    found = ask(memory, QUERY)
    ask(memory, QUERY)
    memory.close()
    log = _log(settings)
    assert {one.id for one in log.memories} == {page["page_id"] for page in found["retrieved_pages"]}
    homes = {page["page_id"]: one["id"] for one in memory.mid_term_memory.sessions.values() for page in one["details"]}
    assert all(len(one.turn_ids) == 2 and homes[one.id] in one.topic for one in log.memories)
    assert len(log.turns) == 2 * len(found["retrieved_pages"])


@pytest.mark.slow
def test_what_is_pushed_out_is_recorded_as_gone(settings: Settings, llm: LLMServer, tmp_path: Path) -> None:
    given = options(llm, tmp_path, mid_term_capacity=1, long_term_knowledge_capacity=2)
    memory = Memoryos(**given, settings=settings)
    talk(memory)
    for text in ("- Has a cat", "- Plays the cello", "- Lives in Oslo"):
        memory.user_long_term_memory.add_user_knowledge(text)
    memory.close()
    kept = {page["page_id"] for one in memory.mid_term_memory.sessions.values() for page in one["details"]}
    log = _log(settings)
    assert {one.id for one in _texts(log, "page_").values()} == kept
    assert len(kept) < 5
    assert set(_texts(log, "knowledge_")) == {"- Plays the cello", "- Lives in Oslo"}
    assert log.deleted == 5 - len(kept) + 2 + 1


def test_a_failing_language_model_gives_no_answer(settings: Settings, tmp_path: Path) -> None:
    with LLMServer(status=400) as broken:
        memory = Memoryos(**options(broken, tmp_path), settings=settings)
        assert memory.get_response(QUERY).startswith("Error")
        memory.close()
    assert _log(settings).retrievals[0].results == ()
    assert _log(settings).answers == ()


@pytest.mark.slow
def test_nothing_is_recorded_without_capture(settings: Settings, llm: LLMServer, tmp_path: Path) -> None:
    memory = Memoryos(**options(llm, tmp_path), settings=settings, capture=False)
    talk(memory)
    assert ask(memory, QUERY)["retrieval_id"] == ""
    memory.get_response(QUERY)
    assert logged(settings) == []


@pytest.mark.slow
def test_users_of_one_assistant_are_kept_apart(settings: Settings, llm: LLMServer, tmp_path: Path) -> None:
    ann = Memoryos(**options(llm, tmp_path, mid_term_heat_threshold=2.9), settings=settings)
    talk(ann)
    bob = Memoryos(**options(llm, tmp_path, "bob"), settings=settings)
    found = ask(bob, "Who explained Bach?")
    assert [entry["knowledge"] for entry in found["retrieved_assistant_knowledge"]] == ["- Explained Bach"]
    for memory in (ann, bob):
        memory.close()
    by_user = {log.scope.user: log for log in logged(settings)}
    assert set(by_user) == {"ann", "bob"}
    assert [memory.text for memory in by_user["bob"].memories] == ["- Explained Bach"]
    assert by_user["bob"].memories[0].turn_ids == ()


@pytest.mark.slow
def test_the_miner_learns_from_it(settings: Settings, llm: LLMServer, tmp_path: Path, stock_encoder: Encoder) -> None:
    memory = Memoryos(**options(llm, tmp_path, "ann"), settings=settings)
    talk(memory)
    for question, answer in (("What do I play in an orchestra?", "You play the cello in an amateur orchestra."),):
        memory.answered(ask(memory, question)["retrieval_id"], answer)
    memory.close()
    result = mine(logged(settings), stock_encoder)
    assert [one.positive.text for one in result.examples] == [f"User: {PAIRS[0][0]} Assistant: {PAIRS[0][1]}"]
    # The garden is another topic of the same conversation, because MemoryOS says so.
    assert {negative.tier.value for one in result.examples for negative in one.negatives} == {"medium"}
