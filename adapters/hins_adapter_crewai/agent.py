"""CrewAI's `Memory` as an agent whose encoder can be swapped."""

from __future__ import annotations

import inspect
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
from hins_memory.sdk import AttachOptions, Binding, ObjectAgent, OwnEncoder, TrackedIndex
from hins_memory.types import Deletion, Memory, RankedMemory, Retrieval, Scope

__all__ = ["CrewAIAgent"]

_WRITES = ("update", "forget", "reset", "reset_all")
_READS = ("list_scopes", "list_records", "list_categories", "info", "tree")


class CrewAIAgent(ObjectAgent):
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

    def open(self, options: AttachOptions) -> None:
        """Serve as asked; vectors of other encoders are in tables beside the memory's own."""
        embedder = self.memory.embedder
        self.serve_beside(options, self.own, embedder.encoder if isinstance(embedder, HinsEmbedder) else None)

    def own(self) -> tuple[TextEncoder, TrackedIndex]:
        """Return the memory's own embedder, which is made when it is used, and its storage."""
        return OwnEncoder(lambda texts: self.memory._embedder(texts)), self.index("")

    def index(self, suffix: str) -> Any:
        """Open the memory's own table."""
        return open_index(self.memory._storage, suffix)

    def bind(self, version: str, suffix: str) -> Binding:
        """Open the table of a version, creating it if it is missing."""
        encoder: Any = self.encoders.by_version(version)
        return Binding(encoder, version, suffix, (open_index(self.memory._storage, suffix, encoder.dim),))

    @property
    def ranking(self) -> Ranking:
        """CrewAI's own score."""
        return CrewAIRanking(self.current.index, self.memory._config)

    def recall(self, query: str, *args: Any, **options: Any) -> Any:
        """Search, by the encoder that serves."""
        asked = _arguments("recall", query, *args, **options)
        scope = self._owner(asked.get("source"))
        with self.pin(scope) as binding:
            binding.index.look()
            found = CrewMemory.recall(self._view(binding, asked=True), query, *args, **options)
            self._searched(scope, query, found, binding.version)
        return found

    def _encode_batch(self, *args: Any, **options: Any) -> Any:
        root = _arguments("_encode_batch", *args, **options).get("root_scope")
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
        if scope is None:
            self.recorder.left_out()
            return
        own = [one for one in found if self._owner_of(one.record.source, one.record.scope, None) == scope]
        if own or not found:
            ranked = tuple(RankedMemory(one.record.id, one.record.content, float(one.score)) for one in own)
            self.recorder.retrieved(Retrieval(scope, query, ranked, version))

    @never_raises(None)
    def _stored(self, root: str | None, records: Sequence[Any]) -> None:
        for one in records:
            scope = self._owner_of(one.source, one.scope, root)
            if scope is None:
                self.recorder.left_out()
            else:
                topic = one.categories[0] if one.categories else ""
                self.recorder.record(Memory(one.id, scope, one.scope, one.content, topic=topic))

    @never_raises(None)
    def _gone(self, root: str | None, rows: Sequence[Any]) -> None:
        for row in rows:
            scope = self._owner_of(row.payload["source"], row.payload["scope"], root)
            if scope is not None:
                self.recorder.record(Deletion(scope, row.id))


def _arguments(method: str, *args: Any, **options: Any) -> dict[str, Any]:
    return inspect.signature(getattr(CrewMemory, method)).bind(None, *args, **options).arguments
