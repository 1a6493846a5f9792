"""LangChain's embeddings interface over an `Encoder`, with its two roles."""

from __future__ import annotations

from langchain_core.embeddings import Embeddings

from hins_memory.sdk import EncoderEmbedder

__all__ = ["AskedText", "HinsEmbeddings"]


class AskedText(str):
    """What is asked, with its vector: LangGraph's SQL stores embed it as a document, and all by one encoder.

    It is equal to itself alone: two owners who ask the same may have encoders of their own.
    """

    vector: list[float]

    @classmethod
    def of(cls, text: str, vector: list[float]) -> AskedText:
        """Return what is asked with the vector of a query, of the length that the store's vectors have."""
        asked = cls(text)
        asked.vector = vector
        return asked

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__


class HinsEmbeddings(EncoderEmbedder, Embeddings):  # type: ignore[misc]  # langchain is not read by mypy
    """An encoder as LangChain and LangGraph's ``ensure_embeddings`` take it.

    Args:
        encoder: an encoder of hins-memory, or a sentence-transformers folder or name.

    Example:
        embeddings = HinsEmbeddings("stock")
        store = InMemoryStore(index={"dims": embeddings.dims, "embed": embeddings, "fields": ["text"]})
    """

    @property
    def dims(self) -> int:
        """The length of the vectors."""
        return len(self.embed_query(""))

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return the unit vectors of what is stored, in the order of the texts; those of what is asked are known."""
        vectors = iter(self.embed([text for text in texts if not isinstance(text, AskedText)]))
        return [text.vector if isinstance(text, AskedText) else next(vectors) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        """Return the unit vector of what is asked."""
        return text.vector if isinstance(text, AskedText) else self.embed([text], "query")[0]
