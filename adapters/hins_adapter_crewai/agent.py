"""CrewAI's `Memory` as an agent whose encoder can be swapped."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from crewai.memory.unified_memory import Memory as CrewMemory

from hins_adapter_crewai.embedding import HinsEmbedder
from hins_adapter_crewai.index import open_index, store_name
from hins_adapter_crewai.ranking import CrewAIRanking, cosine_of
from hins_adapter_crewai.storage import TrackedStorage
from hins_memory.log.capture import never_raises
from hins_memory.plugins.protocols import Ranking
from hins_memory.registry.loader import TextEncoder
from hins_memory.sdk import AttachOptions, BesideAgent, Binding, OwnEncoder
from hins_memory.types import RankedMemory, Scope

__all__ = ["CrewAIAgent"]

_WRITES = ("update", "forget", "reset", "reset_all")
_READS = ("list_scopes", "list_records", "list_categories", "info", "tree")


class CrewAIAgent(BesideAgent):
    """What takes the place of a memory's methods: its own, on the storage and the encoder that serve.

    The owner of a memory is its `source`; without one the `root_scope`, or else the whole store.
    """

    name = "crewai"
    methods = ("recall", "_encode_batch", *_WRITES, *_READS)

    def __init__(self, memory: Any, options: AttachOptions) -> None:
        super().__init__(memory, options)
        config = memory._config
        cosines = (cosine_of(config.consolidation_threshold), config.batch_dedup_threshold)
        # One that is turned off (1.0) is crossed by nothing.
        self.score_thresholds = tuple(cosine for cosine in cosines if -1 < cosine < 1)

    def __deepcopy__(self, memo: Any) -> CrewAIAgent:
        # Crews copy their memories: the copies work on the same store.
        return self

    def __getattr__(self, name: str) -> Any:
        if name in _WRITES or name in _READS:
            return partial(self._through, name)
        raise AttributeError(name)

    def store_of(self, memory: Any) -> str:
        """Name the memory's storage."""
        return store_name(memory._storage)

    @property
    def own_embedder(self) -> Any:
        """What the memory was made with."""
        return self.memory.embedder

    def own_encoder(self) -> TextEncoder:
        """Return the same as an encoder; CrewAI makes its embedder when it is used."""
        return OwnEncoder(lambda texts: self.memory._embedder(texts))

    def indexes(self, suffix: str, encoder: Any = None) -> list[Any]:
        """Open the memory's own table, or the one beside it."""
        return [open_index(self.memory._storage, suffix, encoder.dim if encoder else None)]

    @property
    def ranking(self) -> Ranking:
        """CrewAI's own score."""
        return CrewAIRanking(self.current.index, self.memory._config)

    def recall(self, query: str, *args: Any, **options: Any) -> Any:
        """Search, by the encoder that serves."""
        scope = self._owner(self.arguments("recall", (query, *args), options).get("source"))
        with self.pin(scope) as binding:
            binding.index.look()
            found = CrewMemory.recall(self._view(binding, asked=True), query, *args, **options)
            self._searched(scope, query, found, binding.version)
        return found

    def _encode_batch(self, *args: Any, **options: Any) -> Any:
        root = self.arguments("_encode_batch", args, options).get("root_scope")
        return self._through("_encode_batch", *args, root=root, **options)

    def _through(self, method: str, *args: Any, root: str | None = None, **options: Any) -> Any:
        with self.pin() as binding:
            binding.index.look()
            return getattr(type(self.memory), method)(self._view(binding, root=root), *args, **options)

    def _view(self, binding: Binding, *, asked: bool = False, root: str | None = None) -> Any:
        """Return the memory as it would be with the storage and encoder that serve."""
        view = self.memory.model_copy()
        view._storage = TrackedStorage(binding.index, partial(self._stored, root), partial(self._gone, root))
        if binding.version:
            view._embedder_instance = HinsEmbedder(binding.encoder, "query" if asked else "document")
        return view

    def _owner(self, source: Any, root: str | None = None) -> Scope | None:
        if user := source or root or self.memory.root_scope:
            return Scope.of(user=user)
        return Scope.of(agent=self.store_id)

    def _owner_of(self, source: Any, path: str, root: str | None) -> Scope | None:
        """Return the owner of a record; CrewAI's prefix ``/ann`` finds what is under ``/anna`` as well."""
        base = (root or self.memory.root_scope or "").rstrip("/")
        return self._owner(source, root) if source or path == base or path.startswith(f"{base}/") else None

    @never_raises(None)
    def _searched(self, scope: Scope | None, query: str, found: Sequence[Any], version: str) -> None:
        owned = [
            (
                self._owner_of(one.record.source, one.record.scope, None),
                RankedMemory(one.record.id, one.record.content, float(one.score)),
            )
            for one in found
        ]
        self.recorder.record_search(scope, query, owned, version)

    @never_raises(None)
    def _stored(self, root: str | None, records: Sequence[Any]) -> None:
        for one in records:
            topic = one.categories[0] if one.categories else ""
            self.recorder.record_memory(
                self._owner_of(one.source, one.scope, root), one.id, one.scope, one.content, topic=topic
            )

    @never_raises(None)
    def _gone(self, root: str | None, rows: Sequence[Any]) -> None:
        for row in rows:
            self.recorder.record_deletion(self._owner_of(row.payload["source"], row.payload["scope"], root), row.id)
