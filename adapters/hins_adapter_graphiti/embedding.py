"""Graphiti's interface of embedders over an `Encoder`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from graphiti_core.embedder.client import EmbedderClient

from hins_memory.sdk import EncoderEmbedder, finish

if TYPE_CHECKING:
    from hins_memory.sdk import Binding

__all__ = ["HinsEmbedder", "ServingEmbedder", "asking", "embed_with"]

#: Whether a search runs, whose text is a query; Graphiti's embedders are not told.
asking: ContextVar[bool] = ContextVar("hins_graphiti_asking", default=False)


class HinsEmbedder(EncoderEmbedder, EmbedderClient):  # type: ignore[misc]  # graphiti_core is not read by mypy
    """An encoder as Graphiti takes it. What a search asks is a query only while the `Graphiti` is attached.

    Args:
        encoder: an encoder of hins-memory, or a sentence-transformers folder or name.

    Example:
        graphiti = Graphiti(graph_driver=driver, llm_client=llm, embedder=HinsEmbedder("stock"))
    """

    async def create(self, input_data: Any) -> list[float]:
        """Return the vector of one text, which Graphiti gives in a list."""
        (vector,) = await self.create_batch([input_data] if isinstance(input_data, str) else list(input_data)[:1])
        return vector

    async def create_batch(self, input_data_list: list[str]) -> list[list[float]]:
        """Return the vectors of texts."""
        return await self.embed_async(input_data_list, "query" if asking.get() else "document")


class ServingEmbedder(EmbedderClient):  # type: ignore[misc]  # graphiti_core is not read by mypy
    """In the place of an attached object's embedder: the encoder that serves.

    Args:
        own: the object's own embedder.
        binding: returns what serves.
    """

    def __init__(self, own: Any, binding: Callable[[], Binding]) -> None:
        self._own = own
        self._binding = binding

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    @property
    def _serving(self) -> Any:
        binding = self._binding()
        return HinsEmbedder(binding.encoder) if binding.version else self._own

    async def create(self, input_data: Any) -> Any:
        """Return the vector of one text."""
        return await self._serving.create(input_data)

    async def create_batch(self, input_data_list: list[str]) -> Any:
        """Return the vectors of texts."""
        return await self._serving.create_batch(input_data_list)


def embed_with(embedder: Any, texts: Sequence[str]) -> list[list[float]]:
    """Return what an embedder of Graphiti gives for texts; one by one where it has no call for several."""

    async def embed() -> list[list[float]]:
        try:
            return list(await embedder.create_batch(list(texts)))
        except NotImplementedError:
            return [await embedder.create([text]) for text in texts]

    return finish(embed) if texts else []
