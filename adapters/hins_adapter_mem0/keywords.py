"""How much a search by keyword counts in Mem0's sum, which has no setting for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from mem0.utils.scoring import get_bm25_params

from hins_adapter_mem0.stores import GuardedStore
from hins_memory.sdk.keyword_weight import weighted_keywords

__all__ = ["Keyword", "WeightedStore", "with_weight"]

# Mem0's sigmoid gives this at most: 1 is never reached.
_MOST = 1 - 1e-9


class Keyword(NamedTuple):
    """A result of a search by keyword as Mem0 reads it."""

    id: str
    score: float


def with_weight(query: str, found: Sequence[Any], weight: float) -> list[Keyword]:
    """Return results with the scores for which Mem0 adds what `weighted_keywords` says.

    Mem0 adds a score to the cosine through a sigmoid whose middle and steepness follow from the query; here it is
    inverted. What would need a score of 0 or less cannot be reached, because Mem0 leaves those out: such results are
    left out here too. They are those that were to add less than 0.003 to 0.03, by the query.

    Args:
        query: the lemmatised query, as Mem0 gives it to a store.
        found: the store's results, with `id` and `score`.
        weight: what the best result adds to its cosine, 0 to 1.
    """
    middle, steepness = get_bm25_params(query, lemmatized=query)
    results = []
    added = weighted_keywords([float(one.score or 0) for one in found], weight)
    for one, share in zip(found, added, strict=True):
        if share <= 0:
            continue
        value = min(share, _MOST)
        score = middle + math.log(value / (1 - value)) / steepness
        if score > 0:
            results.append(Keyword(str(one.id), score))
    return results


class WeightedStore(GuardedStore):
    """A store whose search by keyword counts with a weight in Mem0's sum; all else is the store's, its lock included.

    Args:
        store: the store; both may be used, and what is written through one is noted by both.
        weight: what the best result of a search by keyword adds to its cosine, 0 to 1.
    """

    def __init__(self, store: GuardedStore, weight: float) -> None:
        vars(self).update(vars(store))
        self.weight = weight

    def keyword_search(self, query: str, top_k: int = 5, filters: Any = None) -> list[Keyword] | None:
        """Search by keyword, as Mem0's stores do; None where the store cannot."""
        with self.guard:
            found = self.raw.keyword_search(query=query, top_k=top_k, filters=filters)
        return None if found is None else with_weight(query, found, self.weight)
