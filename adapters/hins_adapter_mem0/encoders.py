"""Mem0's own embedder as an encoder, for collections that have to follow those of another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hins_memory.types import Role

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["FrameworkEncoder"]


class FrameworkEncoder:
    """An embedder of Mem0's own, used as an encoder when its collections have to follow those of another."""

    def __init__(self, embedding: Any) -> None:
        self.embedding = embedding

    def encode(self, texts: Sequence[str], *, role: Role = "document") -> NDArray[np.float32]:
        """Return the vectors of texts, of shape (len(texts), dim)."""
        import numpy as np

        vectors = self.embedding.embed_batch(list(texts), "search" if role == "query" else "add")
        return np.asarray(vectors, dtype=np.float32)
