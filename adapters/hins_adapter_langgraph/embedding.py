"""LangChain's embeddings interface over an `Encoder`, with its two roles."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from langchain_core.embeddings import Embeddings

from hins_memory.registry.loader import shared_encoder

if TYPE_CHECKING:
    from hins_memory.registry.loader import TextEncoder

__all__ = ["HinsEmbeddings"]


class HinsEmbeddings(Embeddings):  # type: ignore[misc]  # langchain is not read by mypy
    """An encoder as LangChain and LangGraph's ``ensure_embeddings`` take it.

    Args:
        encoder: an encoder of hins-memory, or a sentence-transformers folder or name.

    Example:
        embeddings = HinsEmbeddings("stock")
        store = InMemoryStore(index={"dims": embeddings.dims, "embed": embeddings, "fields": ["text"]})
    """

    def __init__(self, encoder: TextEncoder | str | Path) -> None:
        self.encoder: TextEncoder = shared_encoder(encoder) if isinstance(encoder, (str, Path)) else encoder

    @property
    def dims(self) -> int:
        """The length of the vectors."""
        return len(self.embed_query(""))

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return the unit vectors of what is stored, in the order of the texts."""
        vectors: list[list[float]] = self.encoder.encode(list(texts), role="document").tolist()
        return vectors

    def embed_query(self, text: str) -> list[float]:
        """Return the unit vector of what is asked."""
        vector: list[float] = self.encoder.encode([text], role="query")[0].tolist()
        return vector
