"""Vectors of memories from where the agent keeps them, so that what is stored is not embedded again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from hins_memory.encoders.encoder import Encoder
from hins_memory.mining.owner.text import clean
from hins_memory.types import Memory, Role

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["StoredFirst", "StoredMemories"]

#: Returns memories by id, those that are stored: the text that the vector is of, and the vector, of shape (dim,).
StoredMemories = Callable[[Sequence[str]], Mapping[str, tuple[str, "NDArray[np.float32]"]]]

# What is asked for at a time.
_CHUNK = 1_000
# A stored vector whose length differs from 1 by more is not an encoder's.
_ROUNDED = 0.01


class StoredFirst(Encoder):
    """An encoder that takes the vectors of an owner's memories from a store where it has them, and embeds the others.

    A vector is taken only if the store has the same text under the memory's id: the log may be older than the store.

    Args:
        encoder: the encoder that made the vectors.
        memories: the owner's, as the log has them.
        stored: reads the store.
    """

    def __init__(self, encoder: Encoder, memories: Iterable[Memory], stored: StoredMemories) -> None:
        super().__init__(encoder.model, encoder.version, cache_size=0, space=encoder.space)
        self._encoder = encoder
        self._stored = stored
        self._ids = {clean(memory.text): memory.id for memory in memories}

    def encode(self, texts: Sequence[str], *, role: Role = "document", batch_size: int = 32) -> NDArray[np.float32]:
        """Return the vectors of texts, as `Encoder.encode`."""
        if role != "document":
            return self._encoder.encode(texts, role=role, batch_size=batch_size)
        vectors = np.empty((len(texts), self.dim), dtype=np.float32)
        missing = np.ones(len(texts), dtype=bool)
        for start in range(0, len(texts), _CHUNK):
            part = texts[start : start + _CHUNK]
            held = self._stored([id_ for text in part if (id_ := self._ids.get(text)) is not None])
            for row, text in enumerate(part, start):
                found = held.get(self._ids.get(text, ""))
                if found is not None and found[0] == text and self._is_unit(found[1]):
                    vectors[row], missing[row] = found[1], False
        rows = np.flatnonzero(missing).tolist()
        if rows:
            others = [texts[row] for row in rows]
            vectors[rows] = self._encoder.encode(others, role=role, batch_size=batch_size)
        return vectors

    def _is_unit(self, vector: NDArray[np.float32]) -> bool:
        # "not <=" would count NaN as right
        return vector.shape == (self.dim,) and bool(abs(float(np.linalg.norm(vector)) - 1) <= _ROUNDED)
