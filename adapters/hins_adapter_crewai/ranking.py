"""How CrewAI ranks what a search finds: half by similarity, the rest by age and importance."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from crewai.memory.types import compute_composite_score

if TYPE_CHECKING:
    from hins_memory.types import Scope

__all__ = ["CrewAIRanking", "cosine_of"]

# What `recall` returns unless it is told otherwise, and how many times as many its search looks at.
_LIMIT, _MORE = 10, 2


class CrewAIRanking:
    """CrewAI's own score, replayed with given cosines and with the ages and importances of a live store.

    Args:
        index: the live table.
        config: the weights of the `Memory`.
    """

    signals = ("recency", "importance")
    candidates = _LIMIT * _MORE
    takes_keyword_weight = False

    def __init__(self, index: Any, config: Any) -> None:
        self._index = index
        self._config = config

    def rank(
        self,
        owner: Scope,
        query: str,
        found: Sequence[Sequence[tuple[str, float]]],
        weights: Sequence[float | None] | None = None,
    ) -> list[list[str]]:
        """Return the ids that `recall` gives for each encoder's ids and cosines, best first."""
        ids = list(dict.fromkeys(id_ for one in found for id_, _ in one))
        known = {record.id: _Aged(record.payload) for record in self._index.get(ids)}
        return [self._ranked(one, known) for one in found]

    def _ranked(self, found: Sequence[tuple[str, float]], known: dict[str, Any]) -> list[str]:
        scored = [
            (compute_composite_score(known[id_], _similarity(cosine), self._config)[0], id_)
            for id_, cosine in found[: self.candidates]
            if id_ in known
        ]
        return [id_ for _, id_ in sorted(scored, key=lambda pair: -pair[0])][:_LIMIT]


class _Aged(SimpleNamespace):
    """What CrewAI's score reads of a record."""

    def __init__(self, row: Any) -> None:
        created = datetime.fromisoformat(str(row["created_at"]).replace("Z", "+00:00"))
        super().__init__(created_at=created, importance=float(row["importance"]))


def _similarity(cosine: float) -> float:
    """Return LanceDB's distance of unit vectors, squared, as CrewAI makes a similarity of it."""
    return 1.0 / (1.0 + max(0.0, 2.0 - 2.0 * cosine))


def cosine_of(similarity: float) -> float:
    """Return the cosine that gives a similarity."""
    return 1.0 - (1.0 / similarity - 1.0) / 2.0
