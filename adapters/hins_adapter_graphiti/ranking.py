"""How Graphiti ranks what a search for facts finds: by the places among the best cosines and the best words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from graphiti_core.search.search_config import DEFAULT_SEARCH_LIMIT
from graphiti_core.search.search_filters import SearchFilters
from graphiti_core.search.search_utils import DEFAULT_MIN_SCORE, edge_fulltext_search, rrf

from hins_memory.sdk import ReplayedRanking, finish

if TYPE_CHECKING:
    from hins_memory.sdk.ranking import Found
    from hins_memory.types import Scope

__all__ = ["MIN_COSINE", "GraphitiRanking"]

#: the least cosine of what a search finds
MIN_COSINE: float = DEFAULT_MIN_SCORE


class GraphitiRanking(ReplayedRanking):
    """Graphiti's reciprocal ranks (`Graphiti.search`), replayed with given cosines and the words of a live graph.

    Args:
        driver: the graph's driver, whose queries may come from any event loop.
    """

    signals = ("keywords",)
    candidates = 2 * int(DEFAULT_SEARCH_LIMIT)

    def __init__(self, driver: Any) -> None:
        self._driver = driver

    def order(self, owner: Scope, query: str, ids: Sequence[str]) -> Callable[[Found], list[str]]:
        """Return the function from ids and cosines to the ids that `Graphiti.search` gives, best first."""
        groups = [owner.user] if owner.user else None
        facts = finish(partial(edge_fulltext_search, self._driver, query, SearchFilters(), groups, self.candidates))
        words = [fact.uuid for fact in facts]

        def ranked(found: Found) -> list[str]:
            near = [id_ for id_, cosine in found if cosine > MIN_COSINE]
            best: list[str] = rrf([words, near])[0][:DEFAULT_SEARCH_LIMIT]
            return best

        return ranked
