"""A `VectorMemoryBlock` as an agent whose encoder can be swapped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hins_adapter_llamaindex.embedding import HinsEmbedding
from hins_adapter_llamaindex.index import open_index, store_name
from hins_memory.log.capture import never_raises
from hins_memory.registry.loader import TextEncoder
from hins_memory.sdk import BesideAgent, Binding, OwnEncoder
from hins_memory.types import RankedMemory, Scope

__all__ = ["LlamaIndexAgent"]


class LlamaIndexAgent(BesideAgent):
    """What takes the place of a block's `_aget` and `_aput`: the block's own, on the store and encoder that serve.

    A session of LlamaIndex's `Memory` is a user: a block never searches two sessions at once.
    """

    name = "llamaindex"
    methods = ("_aget", "_aput")

    def store_of(self, memory: Any) -> str:
        """Name the block's vector store."""
        return store_name(memory.vector_store)

    @property
    def own_embedder(self) -> Any:
        """The block's own embedding model."""
        return self.memory.embed_model

    def own_encoder(self) -> TextEncoder:
        """Return the same as an encoder."""
        return OwnEncoder(self.own_embedder.get_text_embedding_batch, self.own_embedder.get_query_embedding)

    def indexes(self, suffix: str, encoder: Any = None) -> list[Any]:
        """Open the block's own store, or the collection beside it."""
        return [open_index(self.memory.vector_store, suffix)]

    async def _aget(self, messages: list[Any] | None = None, session_id: str | None = None, **block_kwargs: Any) -> str:
        scope = Scope.of(user=session_id)
        async with self.pin_async(scope) as binding:
            view, seen = self._view(binding)
            found: str = await type(self.memory)._aget(view, messages, session_id, **block_kwargs)
        if seen.query:
            self._searched(scope, seen, binding.version)
        return found

    async def _aput(self, messages: list[Any]) -> None:
        async with self.pin_async() as binding:
            view, seen = self._view(binding)
            await type(self.memory)._aput(view, messages)
        self._stored(seen.stored)

    def _view(self, binding: Binding) -> tuple[Any, _Watched]:
        """Return the block as it would be with the store and encoder that serve, and what sees how these are used."""
        seen, block = _Watched(binding.index), self.memory
        # LlamaIndex would put the session's filter into the block itself, where it would stay for other sessions.
        kwargs = dict(block.query_kwargs)
        if filters := kwargs.get("filters"):
            kwargs["filters"] = filters.model_copy(update={"filters": list(filters.filters)})
        model = HinsEmbedding(binding.encoder) if binding.version else block.embed_model
        parts = {"vector_store": seen, "embed_model": model, "query_kwargs": kwargs}
        return block.model_copy(update={**parts, "node_postprocessors": [*block.node_postprocessors, seen]}), seen

    @never_raises(None)
    def _searched(self, scope: Scope | None, seen: _Watched, version: str) -> None:
        # With filters of one's own a block can find what other sessions stored; that is not this session's.
        found = [
            (_owner(node), RankedMemory(node.node_id, node.get_content(), float(score or 0.0)))
            for node, score in seen.found
        ]
        self.recorder.record_search(scope, seen.query, found, version)

    @never_raises(None)
    def _stored(self, nodes: Sequence[Any]) -> None:
        for node in nodes:
            session = str(node.metadata.get("session_id"))
            self.recorder.record_memory(_owner(node), node.node_id, session, node.get_content())


def _owner(node: Any) -> Scope | None:
    """Return the session that stored a node."""
    return Scope.of(user=node.metadata.get("session_id"))


class _Watched:
    """In the place of a block's store, and of its last postprocessor: keeps what was asked, found and stored."""

    def __init__(self, index: Any) -> None:
        self._index = index
        self.query = ""
        self.found: list[tuple[Any, float | None]] = []
        self.stored: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._index.store, name)

    async def aquery(self, query: Any, **options: Any) -> Any:
        """Search the store."""
        result = await self._index.store.aquery(query, **options)
        self.query = query.query_str or ""
        self.found = list(zip(result.nodes or (), result.similarities or (), strict=False))
        return result

    async def apostprocess_nodes(self, nodes: list[Any], **_: Any) -> list[Any]:
        """Keep what the block's postprocessors left."""
        self.found = [(node.node, node.score) for node in nodes]
        return nodes

    async def async_add(self, nodes: list[Any], **options: Any) -> Any:
        """Add to the store."""
        async with self._index.writes.tracked_async([node.node_id for node in nodes]):
            added = await self._index.store.async_add(nodes, **options)
        self.stored.extend(nodes)
        return added
