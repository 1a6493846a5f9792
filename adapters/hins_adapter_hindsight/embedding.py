"""Hindsight's interface of embeddings over an `Encoder`, with its two roles."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hindsight_api.engine.embeddings import Embeddings

from hins_memory.registry.loader import shared_encoder

if TYPE_CHECKING:
    from hins_memory.registry.loader import TextEncoder
    from hins_memory.types import Role

__all__ = ["HinsEmbeddings", "ServingEmbeddings"]


class HinsEmbeddings(Embeddings):  # type: ignore[misc]  # hindsight_api is not read by mypy
    """An encoder as Hindsight's engine takes it.

    Args:
        encoder: an encoder of hins-memory, or a sentence-transformers folder or name.

    Example:
        engine = MemoryEngine(embeddings=HinsEmbeddings("stock"))
    """

    def __init__(self, encoder: TextEncoder | str | Path) -> None:
        #: the encoder
        self.encoder: Any = shared_encoder(encoder) if isinstance(encoder, (str, Path)) else encoder

    @property
    def provider_name(self) -> str:
        """The name in Hindsight's messages."""
        return "hins"

    @property
    def dimension(self) -> int:
        """The length of the vectors."""
        return int(self.encoder.dim)

    async def initialize(self) -> None:
        """Do nothing: the encoder is loaded."""

    async def encode(self, texts: list[str]) -> list[list[float]]:
        """Return the vectors of texts that are stored."""
        return await self.encode_documents(texts)

    async def encode_documents(self, texts: list[str]) -> list[list[float]]:
        """Return the vectors of texts that are stored."""
        return await self._encode(texts, "document")

    async def encode_query(self, texts: list[str]) -> list[list[float]]:
        """Return the vectors of what is asked."""
        return await self._encode(texts, "query")

    async def _encode(self, texts: list[str], role: Role) -> list[list[float]]:
        # In another thread, so that other coroutines go on meanwhile.
        vectors = await asyncio.to_thread(self.encoder.encode, texts, role=role)
        listed: list[list[float]] = vectors.tolist()
        return listed


class ServingEmbeddings(HinsEmbeddings):
    """In the place of the embeddings of an attached engine: the encoder that serves.

    Args:
        serving: returns it.
    """

    def __init__(self, serving: Callable[[], Any]) -> None:
        self._serving = serving

    @property
    def encoder(self) -> Any:
        """The encoder that serves."""
        return self._serving()
