"""What a tower is trained against: all that is stored and may be a negative, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from mine_logs import sailor
from test_mine_scale import SMALL, TopicVectors, big_log

from hins_memory.data.stored_vectors import StoredVectors, StoredVectorsWriter
from hins_memory.mining import MineSettings, mine
from hins_memory.mining.negatives.whole_store import store_owner, stored_queries
from hins_memory.mining.owner.vectors import VectorFolder
from hins_memory.mining.storage.evidence import collect
from hins_memory.types import Feedback


def test_all_memories_are_negatives_but_those_that_may_be_relevant(stock_encoder):
    settings = MineSettings()
    log = sailor()
    owner = collect(log, stock_encoder, settings, None)
    found = {one.query: one for one in stored_queries(owner, stock_encoder, settings)}
    assert owner.owner is not None
    for evidence in owner.queries:
        one = found[evidence.query]
        assert set(one.positives.values()) == set(evidence.positives)
        assert [owner.owner.memories[row].id for row in one.positives.values()] == list(one.positives)
        assert not {*evidence.plausible, *evidence.positives} & set(one.negatives.tolist())
        # nothing but what is likely relevant is missing
        missing = set(range(len(owner.owner.texts))) - set(one.negatives.tolist())
        assert missing == {*evidence.plausible, *evidence.positives}
    chosen = mine([log], stock_encoder, settings).examples
    names = {memory.id: row for row, memory in enumerate(owner.owner.memories)}
    for example in chosen:
        rows = found[example.positive.query].negatives.tolist()
        assert {names[one.memory_id] for one in example.negatives} <= set(rows)


def test_the_guard_and_rejections_hold(stock_encoder):
    log = replace(sailor(), answers=())
    asked, shown = log.retrievals[0], log.retrievals[0].results
    log = replace(
        log,
        feedback=(
            Feedback(shown[3].memory_id, "POSITIVE", asked.id),
            Feedback(shown[0].memory_id, "NEGATIVE", asked.id),
        ),
    )
    settings = MineSettings()
    owner = collect(log, stock_encoder, settings, None)
    (one,) = stored_queries(owner, stock_encoder, settings)
    assert owner.owner is not None
    scores = owner.owner.vectors @ stock_encoder.encode([one.query], role="query")[0]
    (positive,) = one.positives.values()
    over = set(np.flatnonzero(scores >= 0.95 * scores[positive]).tolist())
    rejected = owner.owner.rows[shown[0].memory_id]
    assert rejected in over
    assert over & set(one.negatives.tolist()) == {rejected}


def test_a_query_has_no_more_negatives_than_the_bound_and_the_nearest_are_among_them(stock_encoder):
    settings = MineSettings()
    owner = collect(sailor(), stock_encoder, settings, None)
    whole = list(stored_queries(owner, stock_encoder, settings))
    some = list(stored_queries(owner, stock_encoder, settings, most=6))
    assert owner.owner is not None
    for full, one in zip(whole, some, strict=True):
        scores = owner.owner.vectors @ stock_encoder.encode([one.query], role="query")[0]
        best = full.negatives[np.argsort(-scores[full.negatives])]
        assert one.negatives[:3].tolist() == best[:3].tolist()
        assert len(set(one.negatives.tolist())) == 6
        assert set(one.negatives.tolist()) <= set(full.negatives.tolist())
        assert (one.sampled, one.population) == (3, len(full.negatives) - 3)
        assert (full.sampled, full.population) == (0, 0)
    again = stored_queries(owner, stock_encoder, settings, most=6)
    assert [one.negatives.tolist() for one in again] == [one.negatives.tolist() for one in some]


def test_a_large_owner_is_not_compared_in_full(tmp_path, monkeypatch):
    monkeypatch.setattr("hins_memory.mining.owner.vectors.EXACT_ROWS", 500)
    monkeypatch.setattr("hins_memory.mining.negatives.filters.RESTATED_WORDS", 1.1)
    log, encoder = big_log(2000), TopicVectors()
    with VectorFolder(SMALL, tmp_path).owner() as folder:
        owner = collect(log, encoder, SMALL, folder)
        found = list(stored_queries(owner, encoder, SMALL))
        assert owner.owner is not None
        assert owner.owner.neighbours is not None
        for one in found:
            assert len(set(one.negatives.tolist())) == len(one.negatives) <= 1024
            assert 0 < one.sampled < len(one.negatives)
            assert one.population == pytest.approx(2000 - 512, abs=60)
            assert not set(one.positives.values()) & set(one.negatives.tolist())


def test_each_owner_keeps_to_itself(tmp_path, stock_encoder):
    settings = MineSettings()
    logs = [sailor("ilse"), sailor("other", conversations=3)]
    with StoredVectorsWriter(tmp_path / "stored") as writer:
        for log in logs:
            store_owner(writer, collect(log, stock_encoder, settings, None), stock_encoder, settings)
    stored = StoredVectors(tmp_path / "stored")
    vectors = stored.vectors(384)
    sizes = {log.scope.key: len(log.memories) for log in logs}
    starts = {"user=ilse": 0, "user=other": sizes["user=ilse"]}
    assert len(vectors) == sum(sizes.values())
    for owner, query in stored.queries():
        rows = [*query.negatives.tolist(), *query.positives.values()]
        assert starts[owner] <= min(rows)
        assert max(rows) < starts[owner] + sizes[owner]
        assert all(name.startswith(owner) for name in query.positives)
    texts = [memory.text for memory in logs[0].memories]
    assert np.allclose(vectors[: len(texts)], stock_encoder.encode(texts), atol=1e-2)
