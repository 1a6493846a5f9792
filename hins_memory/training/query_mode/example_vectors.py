"""Training examples as vectors, for a training that does not change the encoder: every text is embedded once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hins_memory.types import TieredExample

if TYPE_CHECKING:
    from torch import Tensor

    from hins_memory.encoders.encoder import Encoder

__all__ = ["ExampleVectors"]


class ExampleVectors:
    """Queries, positives and negatives of examples as vectors of one encoder.

    Args:
        examples: the examples.
        encoder: embeds the queries and the texts, each in its role.
    """

    def __init__(self, examples: Sequence[TieredExample], encoder: Encoder) -> None:
        import torch

        text_ids: dict[str, int] = {}
        self._query_texts = [example.positive.query for example in examples]
        self._positives = [text_ids.setdefault(example.positive.text, len(text_ids)) for example in examples]
        self._negatives = [
            [text_ids.setdefault(negative.text, len(text_ids)) for negative in example.negatives]
            for example in examples
        ]
        #: unit vectors of shape (examples, dim)
        self.queries: Tensor = torch.from_numpy(encoder.encode(self._query_texts, role="query"))
        #: unit vectors of shape (texts, dim)
        self.documents: Tensor = torch.from_numpy(encoder.encode(list(text_ids), role="document"))

    def loss(self, queries: Tensor, rows: Sequence[int], temperature: float) -> Tensor:
        """Return the InfoNCE loss of queries over the positives and negatives of the batch, a scalar.

        A text counts once, and a positive of the same query in another row is not a negative.

        Args:
            queries: unit vectors of shape (batch, dim).
            rows: which examples they are of.
            temperature: what cosines are divided by.
        """
        import torch

        text_ids = [self._positives[row] for row in rows]
        text_ids += [negative for row in rows for negative in self._negatives[row]]
        # (candidates,), each once
        candidates, columns = torch.unique(torch.tensor(text_ids), return_inverse=True)
        target = columns[: len(rows)]
        scores = queries @ self.documents[candidates].T / temperature
        excluded = torch.zeros(scores.shape, dtype=torch.bool)
        positives: dict[str, list[int]] = {}
        for row, column in zip(rows, target.tolist(), strict=True):
            positives.setdefault(self._query_texts[row], []).append(column)
        for i, row in enumerate(rows):
            excluded[i, positives[self._query_texts[row]]] = True
        excluded[torch.arange(len(rows)), target] = False
        return torch.nn.functional.cross_entropy(scores.masked_fill(excluded, float("-inf")), target)
