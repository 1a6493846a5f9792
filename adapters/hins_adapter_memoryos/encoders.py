"""MemoryOS's own embedder as an encoder, for the vectors of a store after a detach."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hins_memory.encoders.encoder import DEFAULT_MODEL
from hins_memory.registry.loader import shared_encoder
from hins_memory.types import Role

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["FrameworkEncoder"]


class FrameworkEncoder:
    """MemoryOS's own embedder, for the vectors of a store after a detach.

    The default model is the stock encoder's, which needs no network; any other is loaded by MemoryOS itself.

    Args:
        function: MemoryOS's ``get_embedding``; None where no MemoryOS runs.
        model_name: the model that it is asked for.
        options: what else it is given.
    """

    def __init__(
        self,
        function: Callable[..., Any] | None = None,
        model_name: str = DEFAULT_MODEL,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self._function = function
        self._model_name = model_name
        self._options = dict(options or {})

    def embed(self, text: str) -> NDArray[np.float32]:
        """Return the unit vector of one text as the running MemoryOS computes it, or remembers it, shape (dim,)."""
        import numpy as np

        if self._function is None:
            return np.asarray(self.encode([text], role="query")[0])
        vector = np.asarray(self._function(text, self._model_name, **self._options), dtype=np.float32)
        norm = np.linalg.norm(vector)
        return np.asarray(vector / norm if norm else vector, dtype=np.float32)

    def encode(self, texts: Sequence[str], *, role: Role = "document") -> NDArray[np.float32]:
        """Return the vectors of texts, of shape (len(texts), dim); MemoryOS knows no roles."""
        import numpy as np

        plain = self._model_name.removeprefix("sentence-transformers/") == DEFAULT_MODEL and not self._options
        if plain or self._function is None:
            return shared_encoder(DEFAULT_MODEL).encode(texts, role=role)
        return np.stack([self.embed(text) for text in texts]) if texts else np.zeros((0, 0), dtype=np.float32)
