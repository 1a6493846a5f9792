"""What a memory's calls leave in the interaction log, and that recording never changes what Mem0 does."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hins_adapter_mem0 import AsyncMemory, Memory
from mem0_world import ANN, FACTS, fill, logged, texts

from hins_memory.config import Settings
from hins_memory.database.engine import open_database
from hins_memory.errors import ConfigError
from hins_memory.log.reader import LogReader
from hins_memory.types import Scope


def _log(settings: Settings) -> Any:
    (log,) = logged(settings)
    return log


def test_add_links_each_message_to_its_memory(settings: Settings) -> None:
    memory = Memory(settings=settings)
    messages = [
        {"role": "user", "name": "Ann", "content": "I play the cello"},
        {"role": "system", "content": "Be kind."},
        {"role": "assistant", "content": "I play the cello"},
        {"role": "user", "content": [{"type": "text", "text": "see my boat"}, {"type": "image_url", "image_url": {}}]},
    ]
    found = memory.add(messages, user_id="ann", agent_id="bot", run_id=7, infer=False)
    memory.close()
    log = _log(settings)
    assert log.scope == Scope(user="ann", agent="bot")
    assert [(turn.speaker, turn.text) for turn in log.turns] == [
        ("Ann", "I play the cello"),
        ("assistant", "I play the cello"),
        ("user", "see my boat"),
    ]
    assert {turn.conversation for turn in log.turns} == {"user=ann&agent=bot&run=7"}
    assert {turn.scope.run for turn in log.turns} == {"7"}
    by_id = {stored.id: stored for stored in log.memories}
    for item, turn in zip(found["results"], log.turns, strict=True):
        assert by_id[item["id"]].turn_ids == (turn.id,)
        assert by_id[item["id"]].speaker == turn.speaker
        assert by_id[item["id"]].text == item["memory"]


def test_search_answer_and_feedback(settings: Settings) -> None:
    memory = Memory(settings=settings)
    ids = fill(memory)
    found = memory.search("Which instrument does Ann play?", filters=ANN, top_k=3)
    memory.answered(found["retrieval_id"], "The cello")
    memory.feedback(ids[0], "POSITIVE")
    memory.feedback(ids[1], "negative", retrieval_id=found["retrieval_id"])
    memory.close()
    log = _log(settings)
    (retrieval,) = log.retrievals
    assert retrieval.id == found["retrieval_id"]
    assert retrieval.query == "Which instrument does Ann play?"
    assert retrieval.encoder_version == memory.embedding_model.encoder.version
    ranked = [(item.memory_id, item.text, item.score) for item in retrieval.results]
    assert ranked == [(item["id"], item["memory"], item["score"]) for item in found["results"]]
    assert [(answer.retrieval_id, answer.text) for answer in log.answers] == [(retrieval.id, "The cello")]
    assert [(item.memory_id, item.polarity, item.retrieval_id) for item in log.feedback] == [
        (ids[0], "POSITIVE", retrieval.id),
        (ids[1], "NEGATIVE", retrieval.id),
    ]


@pytest.mark.slow
def test_feedback_of_another_kind_is_a_clear_error(settings: Settings) -> None:
    with pytest.raises(ConfigError, match="POSITIVE"):
        Memory(settings=settings).feedback("id", "GOOD")


def test_an_answer_to_nothing_is_ignored(settings: Settings) -> None:
    memory = Memory(settings=settings)
    memory.answered("", "The cello")
    memory.answered("x", None)  # type: ignore[arg-type]
    memory.close()
    assert logged(settings) == []


def test_update_and_delete(settings: Settings) -> None:
    memory = Memory(settings=settings)
    item = memory.add([{"role": "user", "name": "Ann", "content": "I play the cello"}], user_id="ann", infer=False)
    first = item["results"][0]["id"]
    second = fill(memory, facts=FACTS[1:2])[0]
    memory.update(memory_id=first, text="I play the viola")
    memory.delete(second)
    memory.close()
    log = _log(settings)
    (stored,) = log.memories
    assert (stored.id, stored.text, stored.speaker) == (first, "I play the viola", "Ann")
    assert stored.turn_ids == (log.turns[0].id,)
    assert log.deleted == 1


def test_delete_all_and_reset(settings: Settings) -> None:
    memory = Memory(settings=settings)
    for user in ("ann", "bob", "eve"):
        fill(memory, user, FACTS[:2])
    memory.delete_all("ann")
    memory.close()
    assert {log.scope.user: (len(log.memories), log.deleted) for log in logged(settings)} == {
        "ann": (0, 2),
        "bob": (2, 0),
        "eve": (2, 0),
    }
    again = Memory(settings=settings)
    again.reset()
    again.close()
    assert [len(log.memories) for log in logged(settings)] == [0, 0, 0]


@pytest.mark.slow
def test_a_turn_answers_every_search_of_its_block(settings: Settings) -> None:
    memory = Memory(settings=settings)
    fill(memory)
    before = memory.search("outside", filters=ANN)["retrieval_id"]
    with memory.turn() as turn:
        first = memory.search("cello", filters=ANN)["retrieval_id"]
        second = memory.search("Oslo", filters=ANN)["retrieval_id"]
        turn.answered("In Oslo, on the cello")
        third = memory.search("cat", filters=ANN)["retrieval_id"]
        turn.answered("Snowball")
        fourth = memory.search("never answered", filters=ANN)["retrieval_id"]
    with pytest.raises(ValueError, match="empty"), memory.turn():
        memory.search("", filters=ANN)
    after = memory.search("after", filters=ANN)["retrieval_id"]
    memory.close()
    answers = {answer.retrieval_id: answer.text for answer in _log(settings).answers}
    assert answers == {first: "In Oslo, on the cello", second: "In Oslo, on the cello", third: "Snowball"}
    assert not {before, fourth, after} & set(answers)


def test_opting_out_of_calls(settings: Settings) -> None:
    memory = Memory(settings=settings)
    (item,) = memory.add(FACTS[0], user_id="ann", infer=False, capture=False)["results"]
    found = memory.search("cello", filters=ANN, capture=False)
    assert found["retrieval_id"] == ""
    memory.answered(found["retrieval_id"], "nothing")
    memory.update(item["id"], "x", capture=False)
    memory.delete(item["id"], capture=False)
    memory.delete_all(user_id="ann", capture=False)
    memory.reset(capture=False)
    memory.close()
    assert logged(settings) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Memory, AsyncMemory])
def test_opting_out_of_everything(kind: Any, settings: Settings) -> None:
    quiet = Settings(home=settings.home, project=settings.project, capture=False)
    for memory in (kind(settings=settings, capture=False), kind(settings=quiet)):
        results = [memory.add(FACTS[0], user_id="ann", infer=False), memory.search("cello", filters=ANN)]
        if kind is AsyncMemory:
            results = [asyncio.run(result) for result in results]
        assert texts(results[1])[0] == FACTS[0]
        memory.close()
    assert logged(settings) == []


def test_a_wildcard_search_belongs_to_nobody(settings: Settings) -> None:
    memory = Memory(settings=settings)
    fill(memory, facts=FACTS[:1])
    found = memory.search("cello", filters={"user_id": "*"})
    assert texts(found) == [FACTS[0]]
    memory.close()
    assert LogReader(open_database(settings.database_url)).counts().retrievals == 0


@pytest.mark.slow
def test_a_log_that_cannot_be_written_stops_nothing(settings: Settings, tmp_path: Any) -> None:
    memory = Memory(settings=settings)
    recorder = memory._hins_recorder
    assert recorder.capture is not None
    recorder.capture.close()
    # Events that cannot even be made: a store row whose scope is no text, a result without its keys.
    recorder.added(memory, object(), {"user_id": object()}, {"results": [None, {"id": 1}, {"id": 1, "memory": 2}]})
    assert recorder.searched(None, {"user_id": "ann"}, None, "") == ""  # type: ignore[arg-type]
    recorder.updated(object(), "x")
    ids = fill(memory)
    assert memory.search("cello", filters=ANN)["results"][0]["id"] == ids[0]
