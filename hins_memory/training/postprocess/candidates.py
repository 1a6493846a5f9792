"""Training examples as vectors, for a training that leaves the encoder as it is: every text embedded once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hins_memory.types import TieredExample

if TYPE_CHECKING:
    from torch import Tensor

    from hins_memory.encoders.encoder import Encoder

__all__ = ["Candidates"]


class Candidates:
    """Queries, positives and negatives of examples as vectors of one encoder.

    Args:
        examples: the examples.
        negatives: how many negatives of each, in their order.
        encoder: embeds the queries and the texts, each in its role.
    """

    def __init__(self, examples: Sequence[TieredExample], negatives: int, encoder: Encoder) -> None:
        import torch

        numbers: dict[str, int] = {}
        self._asked = [example.positive.query for example in examples]
        self._positives = [numbers.setdefault(example.positive.text, len(numbers)) for example in examples]
        self._negatives = [
            [numbers.setdefault(one.text, len(numbers)) for one in example.negatives[:negatives]]
            for example in examples
        ]
        #: unit vectors of shape (examples, dim)
        self.queries: Tensor = torch.from_numpy(encoder.encode(self._asked, role="query"))
        #: unit vectors of shape (texts, dim)
        self.documents: Tensor = torch.from_numpy(encoder.encode(list(numbers), role="document"))

    def loss(self, queries: Tensor, rows: Sequence[int], temperature: float) -> Tensor:
        """Return the InfoNCE loss of queries over the positives and negatives of the batch, a scalar.

        A text counts once, and what is a positive of the same query in another row is left out.

        Args:
            queries: unit vectors of shape (batch, dim).
            rows: which examples they are of.
            temperature: what cosines are divided by.
        """
        import torch

        numbers = [self._positives[row] for row in rows]
        numbers += [number for row in rows for number in self._negatives[row]]
        # (candidates,), each once
        columns, places = torch.unique(torch.tensor(numbers), return_inverse=True)
        target = places[: len(rows)]
        scores = queries @ self.documents[columns].T / temperature
        excluded = torch.zeros(scores.shape, dtype=torch.bool)
        positives: dict[str, list[int]] = {}
        for row, place in zip(rows, target.tolist(), strict=True):
            positives.setdefault(self._asked[row], []).append(place)
        for line, row in enumerate(rows):
            excluded[line, positives[self._asked[row]]] = True
        excluded[torch.arange(len(rows)), target] = False
        return torch.nn.functional.cross_entropy(scores.masked_fill(excluded, float("-inf")), target)
