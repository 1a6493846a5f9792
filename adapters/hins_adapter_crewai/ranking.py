"""How CrewAI ranks what a search finds: half by similarity, the rest by age and importance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from crewai.memory.types import compute_composite_score

from hins_memory.sdk import ReplayedRanking

if TYPE_CHECKING:
    from hins_memory.sdk.ranking import Found
    from hins_memory.types import Scope

__all__ = ["CrewAIRanking", "cosine_of"]

# What `recall` returns unless it is told otherwise, and how many times as many its search looks at.
_LIMIT, _MORE = 10, 2


class CrewAIRanking(ReplayedRanking):
    """CrewAI's own score, replayed with given cosines and with the ages and importances of a live store.

    Args:
        index: the live table.
        config: the weights of the `Memory`.
    """

    signals = ("recency", "importance")
    candidates = _LIMIT * _MORE

    def __init__(self, index: Any, config: Any) -> None:
        self._index = index
        self._config = config

    def order(self, owner: Scope, query: str, ids: Sequence[str]) -> Callable[[Found], list[str]]:
        """Return the function from ids and cosines to the ids that `recall` gives, best first."""
        rows = [{**one.payload, "id": one.id, "content": one.text} for one in self._index.get(ids)]
        known = {row["id"]: self._index.store._row_to_record(row) for row in rows}

        def ranked(found: Found) -> list[str]:
            scores = {
                id_: compute_composite_score(known[id_], _similarity(cosine), self._config)[0]
                for id_, cosine in found
                if id_ in known
            }
            return sorted(scores, key=scores.__getitem__, reverse=True)[:_LIMIT]

        return ranked


def _similarity(cosine: float) -> float:
    """Return LanceDB's distance of unit vectors, squared, as CrewAI makes a similarity of it."""
    return 1.0 / (1.0 + max(0.0, 2.0 - 2.0 * cosine))


def cosine_of(similarity: float) -> float:
    """Return the cosine that gives a similarity."""
    return 1.0 - (1.0 / similarity - 1.0) / 2.0
