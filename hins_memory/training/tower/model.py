"""A model of two sides: a tower that embeds queries, and the encoder of the documents as it was."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hins_memory.encoders.encoder import Encoder
from hins_memory.encoders.score_offset import with_modules
from hins_memory.encoders.sides import sides_of
from hins_memory.training.query_mode.query_map import without_query_map
from hins_memory.types import Role

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer

__all__ = ["TwoSides", "document_side", "one_sided"]


class TwoSides(Encoder):
    """Queries by one model, documents by another encoder, as `two_sided` has them; documents are cached there.

    Args:
        queries: the model of the queries.
        documents: the encoder of the documents.
    """

    def __init__(self, queries: SentenceTransformer, documents: Encoder) -> None:
        super().__init__(queries, "trained", cache_size=0, space=documents.space)
        self._documents = documents

    def encode(self, texts: Sequence[str], *, role: Role = "document", batch_size: int = 32) -> NDArray[np.float32]:
        """Encode texts of either side, as `Encoder.encode`."""
        if role == "document":
            return self._documents.encode(texts, role=role, batch_size=batch_size)
        return super().encode(texts, role=role, batch_size=batch_size)


def one_sided(model: SentenceTransformer) -> bool:
    """Return whether a model can have a tower: it has one side, or two of which `document_side` returns one."""
    return not any(type(module).__name__ == "Router" for module in document_side(model).modules())


def document_side(model: SentenceTransformer) -> SentenceTransformer:
    """Return the model of the documents where `two_sided` or a query map made the model; any other model as it is."""
    import torch

    model = without_query_map(model)
    sides = sides_of(model)
    if sides is None:
        return model
    words = [getattr(side[0], "auto_model", None) for side in sides]
    tables = [one.get_input_embeddings().weight for one in words if one is not None]
    # A tower's words are those of the documents: its update is in the layers. Others came with two sides of their own.
    if len(tables) == 2 and tables[0].shape == tables[1].shape and bool(torch.equal(*tables)):
        return with_modules(model, sides[1])
    return model
