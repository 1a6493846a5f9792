"""Mem0's embedder interface over an `Encoder`: with roles, and with batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mem0.configs.embeddings.base import BaseEmbedderConfig
from mem0.embeddings.base import EmbeddingBase
from mem0.utils.factory import EmbedderFactory

from hins_memory.encoders.encoder import DEFAULT_MODEL, Encoder
from hins_memory.registry.loader import shared_encoder
from hins_memory.types import Role

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["PROVIDER", "FrameworkEncoder", "HinsEmbedding", "register_embedder"]

#: The name of the embedder provider in a Mem0 configuration.
PROVIDER = "hins"


def _role(memory_action: str | None) -> Role:
    return "query" if memory_action == "search" else "document"


class HinsEmbedding(EmbeddingBase):  # type: ignore[misc]  # mem0 has no type information
    """An `Encoder` as Mem0 wants it: lists of floats, `memory_action` instead of a role.

    Mem0 asks for ``search`` when it embeds a query and for ``add`` or ``update`` when it embeds what is stored.
    """

    def __init__(self, config: Any = None, *, encoder: Encoder | None = None) -> None:
        super().__init__(config or BaseEmbedderConfig())
        self.encoder = encoder or shared_encoder(self.config.model or DEFAULT_MODEL)
        self.config.model = self.config.model or self.encoder.version
        self.config.embedding_dims = self.encoder.dim

    def embed(self, text: str, memory_action: str | None = None) -> list[float]:
        """Return the unit vector of one text, of length `encoder.dim`."""
        vector: list[float] = self.encoder.encode([text], role=_role(memory_action))[0].tolist()
        return vector

    def embed_batch(self, texts: Sequence[str], memory_action: str | None = "add") -> list[list[float]]:
        """Return the unit vectors of several texts, in their order."""
        vectors: list[list[float]] = self.encoder.encode(list(texts), role=_role(memory_action)).tolist()
        return vectors


class FrameworkEncoder:
    """Mem0's own embedder as an encoder, for collections of its own that must get the writes to others."""

    def __init__(self, embedding: Any) -> None:
        self.embedding = embedding

    def encode(self, texts: Sequence[str], *, role: Role = "document") -> NDArray[np.float32]:
        """Return the vectors of texts, of shape (len(texts), dim)."""
        import numpy as np

        vectors = self.embedding.embed_batch(list(texts), "search" if role == "query" else "add")
        return np.asarray(vectors, dtype=np.float32)


def register_embedder() -> None:
    """Make ``hins`` a provider of Mem0's embedder factory (its configuration class has a closed list)."""
    EmbedderFactory.provider_to_class.setdefault(PROVIDER, f"{__name__}.{HinsEmbedding.__name__}")
