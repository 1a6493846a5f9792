"""How Mem0 ranks what a search finds: its own fused search, replayed with the cosines of any encoder."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

import mem0

from hins_adapter_mem0.indexes import open_index
from hins_adapter_mem0.keywords import with_weight

if TYPE_CHECKING:
    from hins_adapter_mem0.stores import GuardedStore
    from hins_memory.types import Scope

__all__ = ["Mem0Ranking"]

# More than a search of Mem0 2.x looks at: four times as many as it returns, which is 20 unless it is told otherwise.
_CANDIDATES = 100
_DEFAULTS = {name: one.default for name, one in inspect.signature(mem0.Memory.search).parameters.items()}


class Mem0Ranking:
    """Mem0's search with its keyword scores and entities of a live store, and with given cosines.

    Mem0's own code fuses them, so that this follows its version: in 2.2, of the 80 memories with the best cosines,
    those over 0.1 are ordered by the sum of cosine, BM25 through a sigmoid, and up to 0.5 for entities. Entities are
    compared by the encoder that serves, whatever encoder made the cosines.

    Args:
        embedding: the embedder that serves.
        memories: the store of memories.
        entities: the store of entities.
    """

    candidates = _CANDIDATES
    takes_keyword_weight = True

    def __init__(self, embedding: Any, memories: GuardedStore, entities: GuardedStore) -> None:
        self._embedding = embedding
        self._memories = memories
        self._entities = entities
        self._signals: tuple[str, ...] | None = None

    @property
    def signals(self) -> tuple[str, ...]:
        """What the store adds to the cosines: ``keywords``, ``entities``, both, or nothing."""
        if self._signals is None:
            found = {"keywords": self._has_keywords(), "entities": self._has_entities()}
            self._signals = tuple(name for name, there in found.items() if there)
        return self._signals

    def _has_keywords(self) -> bool:
        """Return whether the store searches by keyword: many do not, and Qdrant only with fastembed."""
        return self._memories.keyword_search(query="memory", top_k=1, filters=None) is not None

    def _has_entities(self) -> bool:
        """Return whether entities are stored, and Mem0 can find those of a query."""
        if find_spec("spacy") is None:
            return False
        from mem0.utils.spacy_models import get_nlp_full

        return not open_index(self._entities, "entities").is_empty() and get_nlp_full() is not None

    def rank(
        self,
        owner: Scope,
        query: str,
        found: Sequence[Sequence[tuple[str, float]]],
        weights: Sequence[float | None] | None = None,
    ) -> list[list[str]]:
        """Return the ids that Mem0's search gives for each encoder's ids, cosines and keyword weight, best first."""
        ids = {"user_id": owner.user, "agent_id": owner.agent, "run_id": owner.run}
        filters = {name: value for name, value in ids.items() if value}
        store = _GivenCosines(self._memories)
        memory = mem0.Memory.__new__(mem0.Memory)
        memory.embedding_model = _EntityEmbedding(self._embedding)
        memory.vector_store = store
        memory._entity_store = self._entities
        rankings = []
        for one, weight in zip(found, weights or [None] * len(found), strict=True):
            store.found, store.weight = one, weight
            results = memory._search_vector_store(query, filters, _DEFAULTS["top_k"], _DEFAULTS["threshold"])
            rankings.append([str(result["id"]) for result in results])
        return rankings


class _Found(NamedTuple):
    """A row as Mem0's stores return it."""

    id: str
    score: float
    payload: dict[str, Any]


class _GivenCosines:
    """A store whose search by vector gives what it was told, and whose search by keyword is a live store's.

    `weight` is how much keywords count, None for Mem0's own sum.
    """

    def __init__(self, live: GuardedStore) -> None:
        self._live = live
        self._keywords: list[Any] = []
        self.found: Sequence[tuple[str, float]] = ()
        self.weight: float | None = None

    def search(self, query: str, vectors: Any, top_k: int, filters: Any = None) -> list[_Found]:
        # Mem0 leaves out rows without a text; the text itself is not read.
        return [_Found(id_, score, {"data": id_}) for id_, score in self.found[:top_k]]

    def keyword_search(self, query: str, top_k: int, filters: Any = None) -> Any:
        # Asked once a query: it is the same for every encoder.
        if not self._keywords:
            self._keywords.append(self._live.keyword_search(query=query, top_k=top_k, filters=filters))
        found = self._keywords[0]
        return found if found is None or self.weight is None else with_weight(query, found, self.weight)


class _EntityEmbedding:
    """An embedder for the entities of a query alone: its cosines with memories are known."""

    def __init__(self, live: Any) -> None:
        self.embed_batch = live.embed_batch

    def embed(self, text: str, memory_action: str) -> list[float]:
        return []
