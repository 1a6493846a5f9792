"""How Graphiti ranks what a search for facts finds: by the places among the best cosines and the best words."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from graphiti_core.search.search_config import DEFAULT_SEARCH_LIMIT
from graphiti_core.search.search_filters import SearchFilters
from graphiti_core.search.search_utils import DEFAULT_MIN_SCORE, edge_fulltext_search, rrf

from hins_adapter_graphiti.embedding import finish

if TYPE_CHECKING:
    from hins_memory.types import Scope

__all__ = ["MIN_COSINE", "GraphitiRanking"]

#: the least cosine of what a search finds
MIN_COSINE: float = DEFAULT_MIN_SCORE


class GraphitiRanking:
    """Graphiti's reciprocal ranks (`Graphiti.search`), replayed with given cosines and the words of a live graph.

    Args:
        driver: the graph's driver, whose queries may come from any event loop.
    """

    signals = ("keywords",)
    candidates = 2 * int(DEFAULT_SEARCH_LIMIT)
    takes_keyword_weight = False

    def __init__(self, driver: Any) -> None:
        self._driver = driver

    def rank(
        self,
        owner: Scope,
        query: str,
        found: Sequence[Sequence[tuple[str, float]]],
        weights: Sequence[float | None] | None = None,
    ) -> list[list[str]]:
        """Return the ids that `Graphiti.search` gives for each encoder's ids and cosines, best first."""
        groups = [owner.user] if owner.user else None
        facts = finish(partial(edge_fulltext_search, self._driver, query, SearchFilters(), groups, self.candidates))
        words = [fact.uuid for fact in facts]
        return [rrf([words, self._near(one)])[0][:DEFAULT_SEARCH_LIMIT] for one in found]

    def _near(self, found: Sequence[tuple[str, float]]) -> list[str]:
        return [id_ for id_, cosine in found[: self.candidates] if cosine > MIN_COSINE]
