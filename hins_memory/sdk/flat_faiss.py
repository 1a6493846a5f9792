"""Flat indexes of faiss, whose vectors can be changed where they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["keep_places", "stored_vectors"]


def stored_vectors(index: Any) -> NDArray[np.float32]:
    """Return the vectors of a flat index as an array over its own memory, shape (ntotal, d): changes to it stay."""
    import faiss
    import numpy as np

    if not index.ntotal:
        return np.empty((0, index.d), dtype=np.float32)
    pointer = index.get_xb()
    array: NDArray[np.float32] = faiss.rev_swig_ptr(pointer, index.ntotal * index.d).reshape(index.ntotal, index.d)
    return array


def keep_places(index: Any, places: Sequence[int]) -> None:
    """Remove all vectors but those at these places, which move up in this order."""
    kept = stored_vectors(index)[list(places)].copy()
    index.reset()
    if len(kept):
        index.add(kept)
