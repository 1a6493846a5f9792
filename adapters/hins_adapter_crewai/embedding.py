"""CrewAI's embedding function over an `Encoder`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hins_memory.registry.loader import TextEncoder
from hins_memory.sdk import EncoderEmbedder
from hins_memory.types import Role

__all__ = ["HinsEmbedder"]


class HinsEmbedder(EncoderEmbedder):
    """An encoder as CrewAI's `Memory` takes it: a callable.

    Args:
        encoder: an encoder of hins-memory, or a sentence-transformers folder or name.
        role: what the texts are. CrewAI has one callable for what is stored and what is asked; an attached memory asks
            by another one than it stores.

    Example:
        memory = Memory(embedder=HinsEmbedder("stock"), storage="crew-memory")
    """

    def __init__(self, encoder: TextEncoder | str | Path, role: Role = "document") -> None:
        super().__init__(encoder)
        self._role = role

    def __call__(self, texts: Sequence[str]) -> list[list[float]]:
        """Return the unit vectors of texts."""
        return self.embed(texts, self._role)
