"""Very large owners: bounded work a query, float16 files, and nearly what a full comparison gives."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from hins_memory.mining import MineSettings, mine
from hins_memory.mining.negatives import near
from hins_memory.mining.negatives.example_builder import _distinct
from hins_memory.mining.owner.neighbourhood import AROUND, NEAREST, candidate_rows, positions_in
from hins_memory.mining.owner.owner import build_owner
from hins_memory.mining.owner.topics import WINDOW, assign_topics
from hins_memory.mining.owner.vectors import Neighbours, VectorFolder, _reserve, best_columns, rows_of
from hins_memory.types import Answer, Feedback, Memory, RankedMemory, Ratio, Retrieval, Scope, ScopeLog, Tier

DIM = 32


class TopicVectors:
    """Vectors near one of some directions, which the text's first word names; texts differ by their last word."""

    version = "topic vectors"

    def __init__(self, dim=DIM):
        self.rows, self.dim = 0, dim

    def encode(self, texts, role="document"):
        self.rows += len(texts)
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        for place, text in enumerate(texts):
            first, last = text.split()[0], text.split()[-1]
            for word, weight in ((first, 1.0), (last, 0.6)):
                seed = [ord(letter) for letter in word]
                vectors[place] += weight * np.random.default_rng(seed).normal(size=self.dim)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def big_log(count, queries=40, conversations=4, answers=False):
    """An owner of `count` memories in equal conversations; every query asks for one of them."""
    scope, each = Scope(user="big"), count // conversations
    memories = tuple(
        Memory(
            f"m{row}", scope, f"c{row // each:02}", f"topic{row // 10 % 50} said number{row}",
            ("Ann", "Bo")[row % 2], time=float(row),
        )
        for row in range(count)
    )  # fmt: skip
    asked, feedback, said = [], [], []
    for place in range(queries):
        target = memories[place * (count // queries)]
        shown = (target, *memories[place * 3 : place * 3 + 5])
        results = tuple(RankedMemory(one.id, one.text, 1.0) for one in shown)
        query = f"{target.text.split()[0]} asked {target.text.split()[-1]}"
        asked.append(Retrieval(scope, query, results, id=f"r{place}", time=1e6 * (place + 1)))
        feedback.append(Feedback(target.id, "POSITIVE", f"r{place}"))
        said.append(Answer(f"r{place}", target.text.split()[-1]))
    outcome = {"answers": tuple(said)} if answers else {"feedback": tuple(feedback)}
    return ScopeLog(scope, memories=memories, retrievals=tuple(asked), **outcome)


RATIO = Ratio(easy=0.4, medium=0.4, hard=0.2)
SMALL = MineSettings(guard=None, max_plausible=1.0)
EXACT_ROWS = "hins_memory.mining.owner.vectors.EXACT_ROWS"


@pytest.fixture(autouse=True)
def small_limits(monkeypatch):
    monkeypatch.setattr(EXACT_ROWS, 500)
    # Its texts are alike; nothing has more than all of the rare words.
    monkeypatch.setattr("hins_memory.mining.negatives.filters.RESTATED_WORDS", 1.1)


def test_a_large_owner_gets_nearly_the_negatives_of_a_full_comparison(monkeypatch):
    monkeypatch.setattr("hins_memory.mining.negatives.pool.NEAR_POOL", 3)
    log = big_log(2000)
    options = replace(SMALL, max_owner_share=1.0)
    near = mine([log], TopicVectors(), options)
    monkeypatch.setattr(EXACT_ROWS, 20_000)
    full = mine([log], TopicVectors(), options)
    assert [one.positive for one in near.examples] == [one.positive for one in full.examples]
    assert all(len(one.negatives) == 3 for one in near.examples)
    for tier in (Tier.EASY, Tier.MEDIUM, Tier.HARD):
        scores = [
            [one.score for example in result.examples for one in example.negatives if one.tier is tier]
            for result in (near, full)
        ]
        assert len(scores[0]) == pytest.approx(len(scores[1]), abs=0.1 * len(scores[1]) + 2)
        assert np.mean(scores[0]) == pytest.approx(np.mean(scores[1]), abs=0.05)
    ratio = [result.report.ratio for result in (near, full)]
    assert ratio[0].hard == pytest.approx(ratio[1].hard, abs=0.03)


@pytest.mark.slow
def test_what_is_near_to_a_query_is_searched_for_again_where_it_cannot_be_held(monkeypatch):
    held = mine([big_log(2000)], TopicVectors(), SMALL)
    monkeypatch.setattr("hins_memory.mining.negatives.example_builder._NEAR_SHARE", 0)
    assert mine([big_log(2000)], TopicVectors(), SMALL) == held


def judged_log(count, conversations):
    """As `big_log`, with texts that come again in every conversation, rejections, and queries of two positives."""
    log = big_log(count, queries=count // 10, conversations=conversations)
    shown = {one.id: [result.memory_id for result in one.results] for one in log.retrievals}
    more = [Feedback(shown[f"r{place}"][1], "NEGATIVE", f"r{place}") for place in range(0, count // 10, 3)]
    more += [Feedback(shown[f"r{place}"][2], "POSITIVE", f"r{place}") for place in range(0, count // 10, 4)]
    again = [
        replace(memory, text=f"again{row % 7} once more hello{row % 5}") if row % 6 == 0 else memory
        for row, memory in enumerate(log.memories)
    ]
    return replace(log, memories=tuple(again), feedback=(*log.feedback, *more))


def chosen(result):
    # Of equal texts in several conversations, whose cosines are equal, any may stand.
    return [
        (one.positive.query, one.positive.memory_id, [(each.text, each.tier) for each in one.negatives])
        for one in result.examples
    ]


@pytest.mark.parametrize("guard", [None, 0.95])
@pytest.mark.parametrize("conversations", [2, 30])
def test_a_short_list_gives_the_examples_of_a_full_comparison(monkeypatch, guard, conversations):
    monkeypatch.setattr(EXACT_ROWS, 20_000)
    # Equal texts of several tiers may be the last that is ranked, so that the ratio would differ a little.
    options = replace(SMALL, guard=guard, max_owner_share=1.0, ratio=RATIO)
    log = judged_log(900, conversations)
    full = mine([log], TopicVectors(), options)
    assert full.examples
    monkeypatch.setattr(near, "_FULL", 100)
    monkeypatch.setattr(near, "_NUMBERS", 20_000)
    # Conversations of 450 are longer than what is compared of them.
    monkeypatch.setattr("hins_memory.mining.owner.neighbourhood.AROUND", 100)
    for length in (32, 9):
        monkeypatch.setattr(near, "SHORT", length)
        short = mine([log], TopicVectors(), options)
        assert chosen(short) == chosen(full)
        assert short.report.ranked == pytest.approx(full.report.ranked, abs=5)
        ours, theirs = ([each.score for one in some.examples for each in one.negatives] for some in (short, full))
        assert ours == pytest.approx(theirs, abs=1e-5)


def test_a_short_list_of_a_very_large_owner_gives_what_all_that_is_near_gives(monkeypatch):
    log, options = judged_log(1500, 30), replace(SMALL, ratio=RATIO)
    long = mine([log], TopicVectors(), options)
    monkeypatch.setattr(near, "SHORT", 9)
    monkeypatch.setattr("hins_memory.mining.owner.vectors._COSINES_SHARE", 2 * 2**30 // 5_000)
    assert chosen(mine([log], TopicVectors(), options)) == chosen(long)


def test_the_highest_scores_are_found_in_order():
    scores = np.random.default_rng(0).normal(size=(7, 1003)).astype(np.float32)
    scores[3, 40:] = -np.inf
    for count in (1, 20, 33, 600, 2000):
        expected = -np.sort(-scores, axis=1)[:, :count]
        assert np.array_equal(np.take_along_axis(scores, best_columns(scores, count), axis=1), expected)
    assert best_columns(scores[:, :5], 20).shape == (7, 5)


def test_a_search_of_all_lists_finds_the_nearest_in_order():
    vectors = np.random.default_rng(1).normal(size=(64, 16)).astype(np.float32)
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    cosines = vectors[:9].astype(np.float32) @ vectors.astype(np.float32).T
    assert Neighbours(vectors[:1], 1).nearest(vectors[:2].astype(np.float32), 2).tolist() == [[0, -1], [0, -1]]
    for numbers in (100, 10_000):
        found = Neighbours(vectors, numbers).nearest(vectors[:9].astype(np.float32), 70)
        assert np.array_equal(found[:, :64], np.argsort(-cosines, axis=1))
        assert (found[:, 64:] == -1).all()


def test_of_equal_texts_the_nearest_stays_in_its_place():
    log = big_log(10, queries=1, conversations=1)
    texts = [
        replace(log.memories[0], id=f"n{row}", conversation=f"c{row}", text=text) for row, text in enumerate("ABA")
    ]
    owner = build_owner(replace(log, memories=tuple(texts)), TopicVectors(), Counter())
    assert _distinct(owner, [0, 1, 2], [0.9, 0.8, 0.7], 3) == ([0, 1], [0.9, 0.8])
    assert _distinct(owner, [0, 1, 2], [0.9, 0.8, 0.7], 1) == ([0], [0.9])


def test_a_large_owners_tiers_follow_the_rule():
    log = big_log(2000)
    stored = {memory.id: memory for memory in log.memories}
    for example in mine([log], TopicVectors(), SMALL).examples:
        positive = stored[example.positive.memory_id]
        for negative in example.negatives:
            other = stored[negative.memory_id]
            assert (negative.tier is Tier.EASY) == (other.conversation != positive.conversation)
            assert negative.tier is not Tier.HARD or other.speaker != positive.speaker


@pytest.mark.slow
def test_answers_of_a_large_owner_are_attributed(monkeypatch):
    log = big_log(2000, answers=True)
    near = mine([log], TopicVectors(), SMALL)
    monkeypatch.setattr(EXACT_ROWS, 20_000)
    full = mine([log], TopicVectors(), SMALL)
    assert near.examples
    assert {one.positive.memory_id for one in near.examples} == {one.positive.memory_id for one in full.examples}


@pytest.mark.slow
def test_the_same_seed_gives_the_same_examples_of_a_large_owner():
    log = big_log(1500)
    assert mine([log], TopicVectors(), SMALL).examples == mine([log], TopicVectors(), SMALL).examples


@pytest.mark.parametrize("conversations", [1, 20])
@pytest.mark.slow
def test_the_work_for_a_query_does_not_grow_with_the_owner(tmp_path, conversations):
    """Counted: vectors that the search compares, memories around a positive, pairs that joining topics compares."""
    compared, joined = [], []
    for count in (2000, 4000, 8000):
        encoder, folder = TopicVectors(), VectorFolder(SMALL, tmp_path)
        with folder.owner():
            owner = build_owner(big_log(count, conversations=conversations), encoder, Counter(), folder)
            assert encoder.rows == count
            assert isinstance(owner.vectors, np.memmap)
            assert owner.vectors.dtype == np.float16
            queries = encoder.encode([f"topic{place} x number{place}" for place in range(50)])
            near = owner.neighbours.nearest(queries, NEAREST)
            compared.append(owner.neighbours.compared / 50)
            assert near.shape == (50, NEAREST)
        sizes = np.bincount(owner.conversations)
        joined.append(sum((min(WINDOW, size) / 4) ** 2 * -(-size // WINDOW) for size in sizes.tolist()))
        for code in set(owner.topics.tolist()):
            rows = np.flatnonzero(owner.topics == code)
            assert rows[-1] - rows[0] < WINDOW
    # Twice the memories: the square root of two more vectors, not twice as many.
    assert compared[2] < 2.6 * compared[0]
    assert joined[2] <= 4 * joined[0] * (1 if conversations == 1 else 4)
    assert not list(tmp_path.iterdir())
    rows = candidate_rows(range(NEAREST), range(10_000, 10_000 + 2 * AROUND), [5, -1])
    assert len(rows) == NEAREST + 2 * AROUND


@pytest.mark.slow
def test_time_to_segment_is_not_quadratic_over_windows():
    vectors = np.random.default_rng(0).normal(size=(2 * WINDOW + 7, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    topics = assign_topics(vectors)
    parts = [set(topics[start : start + WINDOW].tolist()) for start in range(0, len(vectors), WINDOW)]
    assert len(parts) == 3
    assert not parts[0] & parts[1]
    assert not parts[1] & parts[2]


def test_segments_are_those_of_scikit_learn():
    from sklearn.cluster import AgglomerativeClustering
    from sklearn.feature_extraction.image import grid_to_graph

    from hins_memory.mining.owner.topics import _centred, _segment

    counts = (9, 25, 1, 26, 120)
    vectors = [
        np.random.default_rng(seed).normal(size=(count, 24)).astype(np.float32) for seed, count in enumerate(counts)
    ]
    centred = _centred(np.concatenate(vectors), counts)
    for count, start, sizes in zip(counts, np.cumsum((0, *counts)), _segment(centred, counts), strict=False):
        window = centred[start : start + count]
        padded = np.concatenate([window[:1], window, window[-1:]])
        smooth = padded[:-2] * 0.5 + padded[1:-1] + padded[2:] * 0.5
        wanted = max(1, round(count / 4))
        assert len(sizes) == wanted
        assert sum(sizes) == count
        if count > 1:
            chain = grid_to_graph(count, 1)
            theirs = AgglomerativeClustering(n_clusters=wanted, linkage="ward", connectivity=chain).fit_predict(smooth)
            ours = np.repeat(np.arange(len(sizes)), sizes)
            assert (np.diff(ours) != 0).tolist() == (np.diff(theirs) != 0).tolist()


def test_conversations_that_are_done_together_have_the_topics_that_each_has_alone():
    counts = (9, 25, 1, 26, 40)
    rng = np.random.default_rng(0)
    # Subjects that come up again, so that segments are joined.
    subjects = rng.normal(size=(5, 24))
    each = [subjects[rng.integers(0, 5, -(-count // 4))].repeat(4, axis=0)[:count] for count in counts]
    each = [(one + 0.3 * rng.normal(size=one.shape)).astype(np.float32) for one in each]
    together = assign_topics(np.concatenate(each), None, np.repeat(np.arange(len(counts)), counts))
    alone = [assign_topics(one) for one in each]
    assert any(len(set(topics.tolist())) < round(count / 4) for topics, count in zip(alone, counts, strict=True))
    before = np.cumsum([0, *(topics.max() + 1 for topics in alone)])
    assert together.tolist() == np.concatenate([a + b for a, b in zip(alone, before, strict=False)]).tolist()


def test_joined_segments_are_those_of_scipy():
    from scipy.cluster.hierarchy import fcluster, linkage

    from hins_memory.mining.owner.topics import _JOIN_DISTANCE, _cut

    for count, dim, seed in ((3, 2, 0), (7, 4, 1), (40, 6, 2), (300, 3, 3)):
        vectors = np.random.default_rng(seed).normal(size=(count, dim))
        vectors[count // 2] = vectors[0]
        tree = linkage(vectors, method="average", metric="cosine")
        ours, theirs = _cut(tree), fcluster(tree, _JOIN_DISTANCE, criterion="distance")
        assert 1 < len(set(theirs)) < count
        pairs = set(zip(ours.tolist(), theirs.tolist(), strict=True))
        assert len(pairs) == len(set(ours.tolist())) == len(set(theirs.tolist()))
        assert ours.min() == 0


def test_vectors_that_do_not_fit_into_the_budget_go_into_a_file(tmp_path):
    options = MineSettings(memory_budget=16 * 2**20)
    texts = [f"topic{row} number{row}" for row in range(300)]
    narrow, wide = TopicVectors(), TopicVectors(4096)
    with VectorFolder(options, tmp_path).owner() as folder:
        assert not isinstance(folder.encode(narrow, texts), np.memmap)
        mapped = folder.encode(wide, texts)
        assert isinstance(mapped, np.memmap)
        assert np.allclose(mapped, wide.encode(texts), atol=1e-3)
        assert list(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())


def test_a_disk_without_room_is_told_before_anything_is_written(tmp_path):
    with pytest.raises(OSError, match="are free"):
        _reserve(tmp_path / "vectors.f16", 2**60)
    assert not list(tmp_path.iterdir())


def test_half_precision_is_widened_to_the_same_values():
    values = np.random.default_rng(0).normal(size=(300, 8)) * np.logspace(-9, 0, 300)[:, None]
    half = np.concatenate([values.astype(np.float16), np.asarray([[0, -0.0, 1, -1, 6e-8, -6e-8, 65504, 6e-5]], "f2")])
    rows = np.asarray([0, 5, 250, 299, 300])
    assert rows_of(half, rows).tobytes() == half[rows].astype(np.float32).tobytes()
    assert (rows_of(half, np.arange(301)) == half.astype(np.float32)).all()


def test_rows_are_found_again_among_the_candidates():
    rows = candidate_rows([7, 3, -1], np.asarray([3, 9]))
    assert rows.tolist() == [3, 7, 9]
    assert positions_in(rows, [9, 4, 3]) == [2, 0]
    assert positions_in(candidate_rows([]), [1]) == []
