"""CrewAI's embedding function over an `Encoder`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hins_memory.registry.loader import TextEncoder, shared_encoder
from hins_memory.types import Role

__all__ = ["HinsEmbedder"]


class HinsEmbedder:
    """An encoder as CrewAI's `Memory` takes it: a callable.

    Args:
        encoder: an encoder of hins-memory, or a sentence-transformers folder or name.
        role: what the texts are. CrewAI has one callable for what is stored and what is asked; an attached memory asks
            by another one than it stores.

    Example:
        memory = Memory(embedder=HinsEmbedder("stock"), storage="crew-memory")
    """

    def __init__(self, encoder: TextEncoder | str | Path, role: Role = "document") -> None:
        #: the encoder
        self.encoder: Any = shared_encoder(encoder) if isinstance(encoder, (str, Path)) else encoder
        self._role = role

    def __call__(self, texts: Sequence[str]) -> list[list[float]]:
        """Return the unit vectors of texts."""
        vectors: list[list[float]] = self.encoder.encode(list(texts), role=self._role).tolist()
        return vectors

    def embed_query(self, texts: Sequence[str]) -> list[list[float]]:
        """Return the unit vectors of what is asked; for CrewAI's knowledge, which has both roles."""
        vectors: list[list[float]] = self.encoder.encode(list(texts), role="query").tolist()
        return vectors
