"""LlamaIndex's embeddings interface over an `Encoder`, with its two roles."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr

from hins_memory.registry.loader import shared_encoder

if TYPE_CHECKING:
    from hins_memory.registry.loader import TextEncoder

__all__ = ["HinsEmbedding"]


class HinsEmbedding(BaseEmbedding):  # type: ignore[misc]  # llama_index is not read by mypy
    """An encoder as LlamaIndex takes it, for memory blocks and for indexes of any kind.

    Args:
        encoder: an encoder of hins-memory, or a sentence-transformers folder or name.
        options: as those of LlamaIndex's `BaseEmbedding`, e.g. ``embed_batch_size``.

    Example:
        block = VectorMemoryBlock(vector_store=store, embed_model=HinsEmbedding("stock"))
    """

    _encoder: Any = PrivateAttr()

    def __init__(self, encoder: TextEncoder | str | Path, **options: Any) -> None:
        loaded: Any = shared_encoder(encoder) if isinstance(encoder, (str, Path)) else encoder
        super().__init__(**{"model_name": str(getattr(loaded, "version", "hins")), **options})
        self._encoder = loaded

    @property
    def encoder(self) -> Any:
        """The encoder."""
        return self._encoder

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which LlamaIndex knows the class."""
        return "HinsEmbedding"

    def _get_query_embedding(self, query: str) -> list[float]:
        vector: list[float] = self._encoder.encode([query], role="query")[0].tolist()
        return vector

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        vectors: list[list[float]] = self._encoder.encode(texts, role="document").tolist() if texts else []
        return vectors

    # In another thread, so that other coroutines go on meanwhile.
    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await asyncio.to_thread(self._get_query_embedding, query)

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return await asyncio.to_thread(self._get_text_embedding, text)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)
