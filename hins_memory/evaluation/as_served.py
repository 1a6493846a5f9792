"""Scores as served: held-out searches replayed through the ranking of the agent's framework, with given cosines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hins_memory.evaluation.evaluate import Candidates, EvalSet, RankingScores, score_rankings

__all__ = ["SearchReplay", "score_as_served"]


@dataclass(frozen=True, slots=True)
class SearchReplay:
    """The search of an agent's framework, in which more counts than the cosines.

    Attributes:
        agent: the framework's name.
        signals: what counts beside the cosine, e.g. ``("keywords",)``.
        candidates: how many documents with the best cosines a search needs at most.
        takes_weight: whether an encoder's keyword weight counts.
        rank: returns the ranking of each encoder's candidates and keyword weight, for a query's group and text; the
            weight None stands for the framework's own sum.
    """

    agent: str
    signals: tuple[str, ...]
    candidates: int
    takes_weight: bool
    rank: Callable[[str, str, Sequence[Candidates], Sequence[float | None]], Sequence[Sequence[str]]]


def score_as_served(
    replay: SearchReplay,
    sets: Sequence[EvalSet],
    found: Sequence[RankingScores],
    weights: Sequence[float | None],
    *,
    ks: Sequence[int],
) -> list[RankingScores]:
    """Score several encoders as the agent's search would rank what they find, its other signals being the same.

    Args:
        replay: the search.
        sets: the evaluation sets; they may be read from disk when they are used.
        found: each encoder's scores on these sets, with their candidates.
        weights: each encoder's keyword weight; they count only where the search takes them.
        ks: the ranks to cut at.
    """
    taken = [weight if replay.takes_weight else None for weight in weights]
    queries = (query for one in sets for query in one.queries)
    rankings = [
        replay.rank(query.group, query.text, [scores.candidates[row] for scores in found], taken)
        for row, query in enumerate(queries)
    ]
    return [score_rankings(sets, [ranking[side] for ranking in rankings], ks=ks) for side in range(len(found))]
