"""The miner's performance benchmark, on a few made-up conversations."""

import json
import sys

import mining
import numpy as np
import pytest

from hins_memory.errors import ConfigError
from parts.mining.synthetic import Plan, WordVectors, chats, synthetic_logs


@pytest.mark.slow
def test_synthetic_logs_have_as_many_memories_as_asked_for_and_no_text_twice():
    logs = list(synthetic_logs(chats(None), Plan(700), WordVectors()))
    texts = [memory.text for log in logs for memory in log.memories]
    assert len(texts) == len(set(texts)) == 700
    assert len({log.scope for log in logs}) == len(logs) > 3
    for log in logs:
        stored = {memory.id: memory for memory in log.memories}
        assert len(log.retrievals) == len(log.feedback)
        for one in log.feedback:
            assert stored[one.memory_id].scope == log.scope
    (one,) = synthetic_logs(chats(None), Plan(300, users=1, answers=True), WordVectors())
    assert len(one.memories) == 300
    assert one.answers
    assert not one.feedback


@pytest.mark.slow
def test_the_same_seed_gives_the_same_logs_and_vectors():
    first, second = (list(synthetic_logs(chats(None), Plan(200, seed=3), WordVectors())) for _ in range(2))
    assert first == second
    vectors = WordVectors().encode(["a boat", "", "a boat"])
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1)
    assert (vectors[0] == vectors[2]).all()


def test_persona_chats_are_read_from_their_file(tmp_path):
    path = tmp_path / "chats.csv"
    path.write_text('a,b,c\n"I sail.\nI cook.","I read.","User 1: Hi!\nUser 2: Hello: you\nnoise\n"\n')
    (chat,) = chats(path)
    assert chat.lines == (("User 1", "Hi!"), ("User 2", "Hello: you"))
    assert chat.facts == (("User 1", "I sail."), ("User 1", "I cook."), ("User 2", "I read."))
    with pytest.raises(ConfigError, match="no file"):
        chats(tmp_path / "absent")
    path.write_text("a,b\n")
    with pytest.raises(ConfigError, match="no conversations"):
        chats(path)


@pytest.mark.slow
@pytest.mark.usefixtures("forked_programs")
def test_the_quick_run_measures_both_miners(tmp_path, monkeypatch):
    result = tmp_path / "result.json"
    monkeypatch.setattr(sys, "argv", [mining.__file__, "--sizes", "300", "--json", str(result)])
    mining.main()
    written = json.loads(result.read_text())
    assert {row["miner"] for row in written["rows"]} == {"hins", "mine_hard_negatives"}
    assert all(row["examples"] > 0 and row["seconds"] > 0 and row["peak_mib"] > 50 for row in written["rows"])
    assert written["figures"]["memory_ratio_0k"] > 0


@pytest.mark.slow
@pytest.mark.usefixtures("forked_programs")
def test_a_log_of_so_many_events_is_mined_from_the_disk(tmp_path, monkeypatch):
    target = tmp_path / "result.json"
    monkeypatch.setattr(sys, "argv", [mining.__file__, "--events", "2000", "--json", str(target)])
    mining.main()
    (row,) = json.loads(target.read_text())["rows"]
    assert 2000 <= row["events"] < 3000
    assert row["users"] > 1
    assert row["examples"] > 100
