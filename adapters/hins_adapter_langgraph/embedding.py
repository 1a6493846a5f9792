"""LangChain's embeddings interface over an `Encoder`, with its two roles."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from langchain_core.embeddings import Embeddings

from hins_memory.registry.loader import shared_encoder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

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
        # Vectors of queries that another version of the space embeds, by what stands for the query, and of documents.
        self._queries: dict[str, list[float]] = {}
        self._documents: Mapping[str, list[float]] = {}

    @property
    def dims(self) -> int:
        """The length of the vectors."""
        return len(self.embed_query(""))

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return the unit vectors of what is stored, in the order of the texts."""
        # LangGraph's SQL stores call this for queries as well.
        known = {**self._documents, **{text: self._queries[text] for text in texts if text in self._queries}}
        new = [text for text in texts if text not in known]
        vectors = iter(self.encoder.encode(new, role="document").tolist() if new else ())
        return [known[text] if text in known else next(vectors) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        """Return the unit vector of what is asked."""
        if text in self._queries:
            return self._queries[text]
        vector: list[float] = self.encoder.encode([text], role="query")[0].tolist()
        return vector

    @contextmanager
    def asked(self, vectors: Sequence[NDArray[np.float32]]) -> Iterator[list[str]]:
        """Yield what to ask a store, in the place of the queries, to search by these vectors, each of shape (dim,)."""
        tokens = [f"hins-{uuid.uuid4().hex}" for _ in vectors]
        self._queries.update(zip(tokens, (vector.tolist() for vector in vectors), strict=True))
        try:
            yield tokens
        finally:
            for token in tokens:
                self._queries.pop(token, None)

    @contextmanager
    def given(self, vectors: Mapping[str, list[float]]) -> Iterator[None]:
        """Take these vectors for texts that are stored inside the block, by text; the right ones of this encoder."""
        self._documents = vectors
        try:
            yield
        finally:
            self._documents = {}
