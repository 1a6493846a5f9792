"""Queries by one engine, documents by another."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from hins_memory.encoders.cached import CachedEncoder
from hins_memory.types import Role

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["SidedEncoder"]


class SidedEncoder:
    """Embeds queries with one encoder, and documents with another that is loaded when the first document comes.

    Args:
        queries: embeds queries.
        documents: loads what embeds documents, into the space that the queries search.
    """

    def __init__(self, queries: CachedEncoder, documents: Callable[[], CachedEncoder]) -> None:
        self.version, self.space = queries.version, queries.space
        self._queries = queries
        self._load = documents
        self._documents: CachedEncoder | None = None
        self._loading = threading.Lock()

    @property
    def dim(self) -> int:
        """The length of the vectors."""
        return self._queries.dim

    def encode(self, texts: Sequence[str], *, role: Role = "document", batch_size: int = 32) -> NDArray[np.float32]:
        """Return unit vectors of shape (len(texts), dim); raises what loading the documents' encoder raises."""
        encoder = self._queries if role == "query" else self._of_documents()
        return encoder.encode(texts, role=role, batch_size=batch_size)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens of each text the model reads."""
        return self._queries.count_tokens(texts)

    def _of_documents(self) -> CachedEncoder:
        with self._loading:
            if self._documents is None:
                self._documents = self._load()
            return self._documents
