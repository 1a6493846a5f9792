"""What the embedders of adapters have in common: an encoder in a framework's interface."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hins_memory.registry.loader import shared_encoder

if TYPE_CHECKING:
    from hins_memory.registry.loader import TextEncoder
    from hins_memory.types import Role

__all__ = ["EncoderEmbedder"]


class EncoderEmbedder:
    """An encoder whose vectors are lists; an adapter's embedder derives from it, beside the framework's interface.

    Args:
        encoder: an encoder of hins-memory, or a sentence-transformers folder or name.
    """

    def __init__(self, encoder: TextEncoder | str | Path) -> None:
        #: the encoder
        self.encoder: TextEncoder = shared_encoder(encoder) if isinstance(encoder, (str, Path)) else encoder

    def embed(self, texts: Sequence[str], role: Role = "document") -> list[list[float]]:
        """Return the unit vectors of texts, in their order."""
        vectors: list[list[float]] = self.encoder.encode(list(texts), role=role).tolist() if texts else []
        return vectors

    async def embed_async(self, texts: Sequence[str], role: Role = "document") -> list[list[float]]:
        """Return the same, made in another thread, so that other coroutines go on meanwhile."""
        return await asyncio.to_thread(self.embed, texts, role)
