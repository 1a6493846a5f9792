"""How much keywords count, fitted on queries with a known outcome."""

from __future__ import annotations

import pytest

from hins_memory.evaluation import EvalQuery, EvalSet
from hins_memory.evaluation.as_served import SearchReplay
from hins_memory.evaluation.keyword_weight import KEYWORD_WEIGHTS, best_weight, fit_keyword_weight


def test_a_chance_peak_between_worse_neighbours_is_not_taken():
    means = [0.5] * len(KEYWORD_WEIGHTS)
    means[2], means[6], means[7], means[8] = 0.59, 0.57, 0.58, 0.57
    assert best_weight(means) == KEYWORD_WEIGHTS[7]
    # At an end of the grid, too.
    assert best_weight([0.9, 0.8, *means[2:]]) == 0.0


@pytest.mark.parametrize(("takes", "number"), [(True, 20), (True, 19), (False, 20)])
def test_a_weight_is_fitted_where_the_search_takes_one_and_queries_suffice(stock_encoder, takes, number):
    documents = {name: f"Ann likes {name}." for name in ("tea", "wine", "jazz", "chess", "rain", "snow")}
    queries = tuple(EvalQuery(f"What does Ann like, number {n}?", frozenset({"snow"})) for n in range(number))

    def rank(group, query, found, weights):
        # Of this search, the right document comes first with weights of about 0.1 and last with others.
        rest = [[name for name, _ in one if name != "snow"] for one in found]
        good = [weight is not None and 0.07 <= weight <= 0.15 for weight in weights]
        return [["snow", *names] if first else [*names, "snow"] for first, names in zip(good, rest, strict=True)]

    replay = SearchReplay("odd", ("keywords",), 10, takes, rank)
    fitted = fit_keyword_weight(stock_encoder, replay, [EvalSet("one", documents, queries)])
    assert fitted == (0.1 if takes and number >= 20 else None)
