"""What all encoders share: the check of what they are given, and a bounded cache of vectors."""

from __future__ import annotations

import re
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, get_args

from hins_memory.errors import EncoderError
from hins_memory.types import Role

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["CACHE_TEXTS", "CachedEncoder", "tokenizable"]

#: Texts whose vectors are kept.
CACHE_TEXTS = 4096
# Longer texts are encoded but not kept, so that the cache stays within a few tens of MiB.
_CACHE_MAX_CHARS = 4096
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def tokenizable(texts: Sequence[str]) -> list[str]:
    """Return texts as tokenizers take them: half of a surrogate pair, as in broken JSON, is not a character."""
    return [_LONE_SURROGATE.sub("\ufffd", text) for text in texts]


class CachedEncoder(ABC):
    """Texts to unit vectors. Safe with several threads.

    Args:
        version: what the encoder is.
        cache_size: texts whose vectors are kept.
        space: of the documents' vectors; "" for one of its own.
    """

    def __init__(self, version: str, *, cache_size: int = CACHE_TEXTS, space: str = "") -> None:
        #: what this encoder is: the id of an encoder version, or the base model's name with a digest
        self.version = version
        #: names the space of the documents' vectors: encoders of one space search each other's stored vectors
        self.space = space or version
        self._cache: OrderedDict[tuple[str, str], NDArray[np.float32]] = OrderedDict()
        self._cache_size = cache_size
        self._cache_lock = threading.Lock()

    @property
    @abstractmethod
    def dim(self) -> int:
        """The length of the vectors."""

    @abstractmethod
    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens of each text the model reads, without those of a prompt."""

    @abstractmethod
    def _forward(self, texts: list[str], role: Role, batch_size: int) -> NDArray[np.float32]:
        """Return the vectors of different texts, of shape (len(texts), dim)."""

    def encode(self, texts: Sequence[str], *, role: Role = "document", batch_size: int = 32) -> NDArray[np.float32]:
        """Encode texts into unit vectors.

        Args:
            texts: the texts; an empty string is a text like any other.
            role: the side of the search, which decides the model's prompt if it has one.
            batch_size: how many texts go through the model at a time.

        Returns:
            float32 array of shape (len(texts), dim), each row of length 1.

        Raises:
            EncoderError: `texts` is a single string, holds something else than strings, or the role is unknown.
        """
        import numpy as np

        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise EncoderError("encode takes a sequence of strings.", "Put a single text into a list.")
        if role not in get_args(Role):
            raise EncoderError(f"{role!r} is not a role.", "Use 'query' or 'document'.")
        # (n, dim)
        vectors = np.empty((len(texts), self.dim), dtype=np.float32)
        missing: dict[str, list[int]] = {}
        with self._cache_lock:
            for row, text in enumerate(texts):
                cached = self._cache.get((role, text))
                if cached is None:
                    missing.setdefault(text, []).append(row)
                else:
                    self._cache.move_to_end((role, text))
                    vectors[row] = cached
        if missing:
            fresh = self._forward(list(missing), role, batch_size)
            for vector, rows in zip(fresh, missing.values(), strict=True):
                vectors[rows] = vector
            self._remember(list(missing), role, fresh)
        return vectors

    def _remember(self, texts: list[str], role: Role, vectors: NDArray[np.float32]) -> None:
        with self._cache_lock:
            for text, vector in zip(texts[-self._cache_size :], vectors[-self._cache_size :], strict=True):
                if len(text) <= _CACHE_MAX_CHARS:
                    self._cache[(role, text)] = vector.copy()
            while len(self._cache) > self._cache_size:
                self._cache.popitem(last=False)
