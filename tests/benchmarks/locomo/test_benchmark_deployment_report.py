"""The benchmark's figures against worked examples."""

import pytest

from hins_memory.evaluation import EvalQuery, EvalSet, score_rankings
from parts.locomo.deployment_report import Scored, report_deployment, report_stock

DOCUMENTS = {name: name for name in "abcdefghijkl"}
SECOND = 100 / 1.584962500721156  # nDCG@10 of one relevant document at rank 2


def _scores(name: str, ranks: list[tuple[str, int]]):
    """Return scores of a conversation whose queries have their one relevant document at these ranks (0: nowhere)."""
    queries = tuple(EvalQuery(f"q{n}", frozenset({"a"}), group) for n, (group, _) in enumerate(ranks))
    others = list("bcdefghijkl")
    rankings = [[*others[: rank - 1], "a"] if rank else others for _, rank in ranks]
    return score_rankings([EvalSet(name, DOCUMENTS, queries)], rankings)


def _scored(encoder: dict, search: dict) -> Scored:
    return Scored(
        {name: _scores(name, ranks) for name, ranks in encoder.items()},
        {name: _scores(name, ranks) for name, ranks in search.items()},
    )


STOCK = _scored(
    {"one": [("1", 2), ("4", 0), ("5", 1)], "two": [("2", 1), ("5", 1)]},
    {"one": [("1", 1), ("4", 1), ("5", 1)], "two": [("2", 0), ("5", 1)]},
)
HINS = _scored(
    {"one": [("1", 1), ("4", 2), ("5", 0)], "two": [("2", 2), ("5", 0)]},
    {"one": [("1", 1), ("4", 1), ("5", 0)], "two": [("2", 1), ("5", 0)]},
)


def test_stock_figures_are_micro_means_without_the_trap_category():
    shown = []
    figures, rows = report_stock(STOCK, lambda *table: shown.append(table))
    assert figures["stock_ndcg10"] == pytest.approx((SECOND + 0 + 100) / 3)
    assert figures["stock_recall10"] == pytest.approx(200 / 3)
    assert figures["mem0_stock_ndcg10"] == pytest.approx(200 / 3)
    trap = next(row for row in rows if row["scoring"] == "encoder" and "adversarial" in row["slice"])
    assert (trap["queries"], trap["ndcg10"], trap["mrr"]) == (2, 100.0, 100.0)
    assert len(shown) == 2
    assert not any("open" in row["slice"] for row in rows)


def test_gains_by_fold_and_with_an_interval():
    folds = {"1": ["two"], "2": ["one"]}
    figures, rows = report_deployment(STOCK, HINS, folds, 0, lambda *table: None)
    before, after = (SECOND + 0 + 100) / 3, (100 + SECOND + SECOND) / 3
    assert figures["gain_ndcg10"] == pytest.approx(after - before)
    assert figures["hins_ndcg10"] - figures["stock_ndcg10"] == pytest.approx(figures["gain_ndcg10"])
    assert figures["worst_fold_gain"] == pytest.approx(SECOND - 100)
    assert figures["gain_ci_low"] == pytest.approx(SECOND - 100)
    assert figures["mem0_gain_ndcg10"] == pytest.approx(100 / 3)
    assert figures["mem0_worst_fold_gain"] == pytest.approx(0)
    fold = next(row for row in rows if (row["scoring"], row["encoder"], row["slice"]) == ("encoder", "hins", "fold 2"))
    assert (fold["queries"], fold["recall1"], fold["recall10"]) == (2, 50.0, 100.0)


def test_a_file_of_traps_alone_has_rows_and_no_headline():
    scored = _scored({"one": [("5", 1)]}, {"one": [("5", 2)]})
    figures, rows = report_deployment(scored, scored, {"1": ["one"]}, 0, lambda *table: None)
    assert figures == {}
    assert {row["slice"] for row in rows} == {"5 adversarial"}
