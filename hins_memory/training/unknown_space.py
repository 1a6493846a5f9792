"""An encoder for a store whose own encoder is not at hand, such as a hosted API: only its vectors and texts are known.

A local encoder is mapped into the space by a linear map, fitted by ridge regression on texts with their stored vectors.
Its queries then find stored vectors, and a tower can be trained behind the map like that of any other encoder:

    encoder = encoder_of_space(texts, vectors, base="starter", space="api-embedding-3")
    train_encoder(rows, "queries", base=encoder, settings=TrainSettings(mode="tower"))

The folder embeds queries for the store as it is (`encode_query`); its documents' side is the linear map alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hins_memory.encoders.encoder import Encoder
from hins_memory.encoders.score_offset import with_affine
from hins_memory.errors import NotEnoughDataError, TrainingError
from hins_memory.training.postprocess.weights import without_added_layers
from hins_memory.types import Role

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["encoder_of_space"]

# Fewer texts say nothing of a space of hundreds of dimensions.
_LEAST = 16
# More texts than this do not make the map better, and this many are embedded in a minute or two.
_MOST = 8_192
# What is tried as the ridge, as a multiple of the number of texts; the error of leaving each text out decides, which
# ridge regression has in closed form.
_RIDGES = [10.0**power for power in range(-6, 1)]


class _MappedEncoder(Encoder):
    """A local model behind a linear map; texts that are stored have the vectors that they are stored with."""

    def __init__(
        self, encoder: Encoder, texts: Sequence[str], vectors: NDArray[np.float32], space: str, digest: str
    ) -> None:
        super().__init__(encoder.model, f"{space}:{encoder.version}-{digest}", space=space)
        self._rows = {text: row for row, text in enumerate(texts)}
        self._stored = vectors

    def encode(self, texts: Sequence[str], *, role: Role = "document", batch_size: int = 32) -> NDArray[np.float32]:
        """Encode texts, as `Encoder.encode`; documents that are stored are looked up."""
        if role != "document" or isinstance(texts, str):
            return super().encode(texts, role=role, batch_size=batch_size)
        import numpy as np

        found = np.empty((len(texts), self.dim), dtype=np.float32)
        unknown = [place for place, text in enumerate(texts) if text not in self._rows]
        found[unknown] = super().encode([texts[place] for place in unknown], role=role, batch_size=batch_size)
        known = [place for place, text in enumerate(texts) if text in self._rows]
        found[known] = self._stored[[self._rows[texts[place]] for place in known]]
        return found


def encoder_of_space(
    texts: Sequence[str],
    vectors: NDArray[np.floating[Any]],
    *,
    base: str | Path | Encoder = "starter",
    space: str,
) -> Encoder:
    """Return an encoder of a space that is known by its stored vectors alone.

    Texts that are stored have their vectors; other texts, and all queries, are embedded by a local encoder and mapped.

    Args:
        texts: what is stored.
        vectors: their vectors, of shape (len(texts), dim); their lengths do not count.
        base: the local encoder, as for `Encoder.load`, or one that is loaded; it stays as it is.
        space: a name for the space, e.g. that of the hosted model.

    Raises:
        NotEnoughDataError: fewer than 16 texts.
        TrainingError: the vectors are not one for each text, or hold a zero vector or one that is not finite.
        EncoderError: the base cannot be loaded.
    """
    import numpy as np

    if np.ndim(vectors) != 2 or len(vectors) != len(texts):
        raise TrainingError(
            f"There are {len(texts)} texts and vectors of shape {np.shape(vectors)}.", "Give one vector for each text."
        )
    if len(texts) < _LEAST:
        raise NotEnoughDataError(
            f"There are {len(texts)} stored texts; a linear map needs at least {_LEAST}.",
            "Store more before it is made.",
        )
    stored = np.asarray(vectors, dtype=np.float32)
    lengths = np.linalg.norm(stored, axis=1, keepdims=True)
    if not np.isfinite(lengths).all() or not lengths.all():
        raise TrainingError("A stored vector is zero or not finite.", "Leave such records out.")
    stored = stored / lengths
    encoder = base if isinstance(base, Encoder) else Encoder.load(base)
    chosen = np.random.default_rng(0).permutation(len(texts))[:_MOST]
    local = Encoder(without_added_layers(encoder), encoder.version, cache_size=0)
    weight, shift = _ridge(local.encode([texts[row] for row in chosen]), stored[chosen])
    digest = hashlib.sha256(weight.numpy().tobytes() + shift.numpy().tobytes()).hexdigest()[:8]
    model = with_affine(local.model, weight, shift)
    return _MappedEncoder(Encoder(model, encoder.version), texts, stored, space, digest)


def _ridge(local: NDArray[np.float32], stored: NDArray[np.float32]) -> tuple[Tensor, Tensor]:
    """Return the map of local vectors onto stored ones: a matrix of shape (stored dim, local dim), and a shift."""
    import numpy as np
    import torch

    middle, target = local.mean(axis=0), stored.mean(axis=0)
    left, sizes, right = np.linalg.svd(local - middle, full_matrices=False)
    # (rank, stored dim)
    along = left.T @ (stored - target)

    def loss(ridge: float) -> float:
        kept = sizes**2 / (sizes**2 + ridge * len(local))
        # What a text weighs in its own prediction; leaving it out makes its error larger by this factor.
        own = (left**2) @ kept + 1 / len(local)
        errors = (stored - target - left @ (kept[:, None] * along)) / np.maximum(1 - own, 1e-6)[:, None]
        return float(np.square(errors).mean())

    best = min(_RIDGES, key=loss)
    weight = (right.T @ ((sizes / (sizes**2 + best * len(local)))[:, None] * along)).T
    shift = target - weight @ middle
    return torch.from_numpy(weight.astype(np.float32)), torch.from_numpy(shift.astype(np.float32))
