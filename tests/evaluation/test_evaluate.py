"""Ranking metrics against worked examples and a naive implementation; the bootstrap against what must hold of it."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hins_memory.errors import ConfigError
from hins_memory.evaluation import (
    EvalQuery,
    EvalSet,
    cutoff_shares,
    evaluate_encoder,
    ndcg,
    paired_bootstrap,
    recall,
    reciprocal_rank,
    score_rankings,
)


def naive_ndcg(gains, ideal, k):
    dcg = sum(gain / math.log2(rank + 2) for rank, gain in enumerate(gains[:k]))
    best = sum(gain / math.log2(rank + 2) for rank, gain in enumerate(sorted(ideal, reverse=True)[:k]))
    return dcg / best if best > 0 else 0.0


def one_set(relevant=("a",), name="set"):
    documents = {"a": "Ann plays the cello.", "b": "Bob grows tomatoes.", "c": "The tide comes in at noon."}
    return EvalSet(name, documents, (EvalQuery("Which instrument does Ann play?", frozenset(relevant), "g"),))


def test_ndcg_worked_example_graded():
    # The well-known example: gains 3 2 3 0 1 2 give DCG 6.861, ideal (of the same six) 7.141, nDCG 0.961.
    gains = [[3, 2, 3, 0, 1, 2]]
    assert ndcg(gains, gains, 6)[0] == pytest.approx(6.861 / 7.141, abs=1e-3)


def test_ndcg_worked_example_binary():
    # Relevant at ranks 2 and 4 of three relevant: (1/log2 3 + 1/log2 5) / (1 + 1/log2 3 + 1/2)
    expected = (1 / math.log2(3) + 1 / math.log2(5)) / (1 + 1 / math.log2(3) + 0.5)
    assert ndcg([[0, 1, 0, 1]], [[1, 1, 1]], 10)[0] == pytest.approx(expected)
    assert ndcg([[0, 1, 0, 1]], [[1, 1, 1]], 1)[0] == 0


def test_recall_and_reciprocal_rank_worked_examples():
    gains = [[0, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]]
    assert recall(gains, [3, 2, 1], 2).tolist() == pytest.approx([1 / 3, 0, 1])
    assert recall(gains, [3, 2, 1], 4).tolist() == pytest.approx([2 / 3, 0, 1])
    assert reciprocal_rank(gains).tolist() == pytest.approx([0.5, 0, 1])


@pytest.mark.slow
@given(
    st.lists(st.lists(st.integers(0, 4), min_size=8, max_size=8), min_size=1, max_size=6),
    st.lists(st.integers(0, 4), max_size=6),
    st.integers(1, 12),
)
def test_metrics_agree_with_naive(rows, missed, k):
    ideal = [row + missed for row in rows]
    np.testing.assert_allclose(ndcg(rows, ideal, k), [naive_ndcg(r, i, k) for r, i in zip(rows, ideal, strict=True)])
    totals = [sum(gain > 0 for gain in row) for row in ideal]
    expected = [sum(g > 0 for g in r[:k]) / t if t else 0 for r, t in zip(rows, totals, strict=True)]
    np.testing.assert_allclose(recall(rows, totals, k), expected)
    ranks = [next((1 / (i + 1) for i, g in enumerate(r) if g > 0), 0) for r in rows]
    np.testing.assert_allclose(reciprocal_rank(rows), ranks)


@given(st.permutations(list("abcdefgh")), st.sets(st.sampled_from("abcdefgh"), min_size=1))
def test_score_rankings_agrees_with_naive(ranking, relevant):
    documents = {name: name for name in "abcdefgh"}
    scores = score_rankings([EvalSet("s", documents, (EvalQuery("q", frozenset(relevant)),))], [ranking], ks=(3, 5))
    gains = [float(name in relevant) for name in ranking]
    for k in (3, 5):
        assert scores.ndcg[k][0] == pytest.approx(naive_ndcg(gains, [1.0] * len(relevant), k))
        assert scores.recall[k][0] == pytest.approx(sum(gains[:k]) / len(relevant))
    assert scores.mrr[0] == pytest.approx(1 / (gains.index(1.0) + 1))


def test_score_rankings_counts_a_repeated_document_once():
    scores = score_rankings([one_set(("a", "b"))], [["a", "a", "b"]], scores=[[0.9, 0.9, 0.2]], ks=(2,))
    assert scores.recall[2][0] == 1.0
    assert scores.top_scores.tolist() == [[0.9, 0.9]]


def test_score_rankings_wants_one_ranking_a_query():
    with pytest.raises(ConfigError, match="0 rankings for 1 queries"):
        score_rankings([one_set()], [])


def test_evaluate_encoder_finds_the_relevant_document(stock_encoder):
    scores = evaluate_encoder(stock_encoder, [one_set(), one_set(("c",), "other")])
    assert len(scores) == 2
    assert scores.mrr[0] == 1.0
    assert scores.ndcg[1].tolist() == [1.0, 0.0]
    assert scores.sets == ("set", "other")
    assert np.isnan(scores.top_scores[:, 3:]).all()
    cosines = scores.top_scores[:, :3]
    assert (np.diff(cosines, axis=1) <= 0).all()
    table = scores.by_group()
    assert table["g"]["recall@10"] == 1.0
    assert table["g"] == scores.mean()


def test_ties_go_to_the_smaller_id_whatever_the_order(stock_encoder):
    texts = {f"d{number:03}": "Ann plays the cello." for number in range(37)}
    for documents in (texts, dict(reversed(texts.items()))):
        one = EvalSet("ties", documents, (EvalQuery("cello", frozenset(["d003"])),))
        assert evaluate_encoder(stock_encoder, [one]).mrr[0] == pytest.approx(1 / 4)


def test_blocks_of_queries_change_nothing(stock_encoder, monkeypatch):
    queries = tuple(EvalQuery(f"{word}?", frozenset("b")) for word in ("cello", "tomatoes", "tide", "noon", "Ann"))
    one = EvalSet("set", one_set().documents, queries)
    whole = evaluate_encoder(stock_encoder, [one])
    monkeypatch.setattr("hins_memory.evaluation.evaluate._MAX_PAIRS", 6)
    blocks = evaluate_encoder(stock_encoder, [one])
    assert blocks.mrr.tolist() == whole.mrr.tolist()
    np.testing.assert_allclose(blocks.top_scores, whole.top_scores, atol=1e-5)


@pytest.mark.parametrize("relevant", [(), ("z",)])
def test_a_set_refuses_queries_it_cannot_score(relevant):
    with pytest.raises(ConfigError, match=r"relevant document|does not hold"):
        one_set(relevant)


def test_no_query_is_a_clear_error(stock_encoder):
    with pytest.raises(ConfigError, match="no query"):
        evaluate_encoder(stock_encoder, [EvalSet("empty", {}, ())])


def test_bootstrap_interval_agrees_with_theory():
    random = np.random.default_rng(1)
    baseline = random.random(400)
    candidate = baseline + random.normal(0.05, 0.2, 400)
    result = paired_bootstrap(candidate, baseline, samples=4000)
    differences = candidate - baseline
    half_width = 1.96 * differences.std() / 20
    assert result.difference == pytest.approx(differences.mean())
    assert result.low == pytest.approx(differences.mean() - half_width, abs=0.002)
    assert result.high == pytest.approx(differences.mean() + half_width, abs=0.002)
    assert (result.queries, result.clusters) == (400, 400)
    assert result.p_value < 0.01


def test_bootstrap_of_equal_scores_shows_no_difference():
    result = paired_bootstrap([0.1, 0.5, 0.9], [0.1, 0.5, 0.9], samples=100)
    assert (result.difference, result.low, result.high, result.p_value) == (0, 0, 0, 1)


def test_bootstrap_covers_the_truth_about_as_often_as_it_says():
    random = np.random.default_rng(2)
    covered = 0
    for seed in range(200):
        scores = random.normal(0.3, 1.0, 60)
        result = paired_bootstrap(scores, np.zeros(60), samples=400, seed=seed)
        covered += result.low <= 0.3 <= result.high
    assert 0.88 <= covered / 200 <= 0.99


def test_clusters_widen_the_interval_when_their_queries_are_alike():
    random = np.random.default_rng(3)
    per_cluster = random.normal(0.1, 0.2, 20)
    scores = np.repeat(per_cluster, 30)
    clusters = np.repeat(np.arange(20), 30).tolist()
    single = paired_bootstrap(scores, np.zeros(600), samples=2000)
    grouped = paired_bootstrap(scores, np.zeros(600), samples=2000, clusters=clusters)
    assert grouped.clusters == 20
    assert grouped.high - grouped.low > 3 * (single.high - single.low)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=30), st.integers(0, 5))
def test_bootstrap_is_deterministic_and_antisymmetric(scores, seed):
    zeros = [0.0] * len(scores)
    forward = paired_bootstrap(scores, zeros, samples=200, seed=seed)
    assert forward == paired_bootstrap(scores, zeros, samples=200, seed=seed)
    backward = paired_bootstrap(zeros, scores, samples=200, seed=seed)
    assert forward.low == pytest.approx(-backward.high)
    assert forward.low <= forward.high


def test_bootstrap_blocks_change_nothing(monkeypatch):
    scores = np.random.default_rng(4).random(50)
    whole = paired_bootstrap(scores, np.full(50, 0.4), samples=500)
    monkeypatch.setattr("hins_memory.evaluation.metrics._MAX_DRAWS", 333)
    assert paired_bootstrap(scores, np.full(50, 0.4), samples=500) == whole


@pytest.mark.parametrize(
    ("candidate", "baseline", "clusters"),
    [([], [], None), ([1.0], [1.0, 2.0], None), ([float("nan")], [0.0], None), ([1.0, 0.0], [0.0, 0.0], ["a"])],
)
def test_bootstrap_refuses_what_does_not_pair(candidate, baseline, clusters):
    with pytest.raises(ConfigError):
        paired_bootstrap(candidate, baseline, clusters=clusters)


def test_cutoff_shares():
    assert cutoff_shares([[0.1, 0.5], [0.95, np.nan]], (0.1, 0.5, 0.96)) == pytest.approx({0.1: 1, 0.5: 2 / 3, 0.96: 0})
    with pytest.raises(ConfigError, match="no score"):
        cutoff_shares([np.nan], (0.1,))
