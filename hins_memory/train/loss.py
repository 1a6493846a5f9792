"""The training loss: InfoNCE over in-batch and mined negatives, every candidate text counted once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = ["TieredInfoNCELoss", "embed_sorted"]


def _padded_to(tensor: Tensor, length: int) -> Tensor:
    """Pad the second dimension with zeros up to `length`."""
    return nn.functional.pad(tensor, (0, length - tensor.shape[1]))


def embed_sorted(model: nn.Module, columns: list[dict[str, Tensor]], micro_batch_size: int) -> Tensor:
    """Embed the texts of several columns in micro-batches of similar length, without padding waste.

    Args:
        model: a sentence-transformers model.
        columns: tokenised columns, each with ``input_ids`` and ``attention_mask`` of shape (n_i, length_i).
        micro_batch_size: texts per forward pass.

    Returns:
        Unit vectors of shape (sum of n_i, dim), in the order of the columns, float32.
    """
    longest = max(column["input_ids"].shape[1] for column in columns)
    names = [name for name, value in columns[0].items() if isinstance(value, Tensor) and value.dim() == 2]
    merged = {name: torch.cat([_padded_to(column[name], longest) for column in columns]) for name in names}
    lengths = merged["attention_mask"].sum(dim=1)
    order = torch.argsort(lengths, stable=True)
    vectors = []
    for rows in torch.split(order, micro_batch_size):
        length = int(lengths[rows].max())
        features = {name: tensor[rows, :length] for name, tensor in merged.items()}
        vectors.append(model(features)["sentence_embedding"].float())
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(len(order), device=order.device)
    return nn.functional.normalize(torch.cat(vectors)[inverse], dim=-1)


def _same_rows(left: Tensor, right: Tensor) -> Tensor:
    """Return which rows of two token matrices are the same text: bool of shape (len(left), len(right))."""
    length = max(left.shape[1], right.shape[1])
    return (_padded_to(left, length)[:, None] == _padded_to(right, length)[None]).all(dim=-1)


class TieredInfoNCELoss(nn.Module):
    """InfoNCE over the positives and the mined negatives of a whole batch.

    For each query, every positive and every negative of the batch is a candidate. Left out of a query's candidates
    are: texts equal to its own positive, positives of the same query in another row, and repetitions of a text.

    Inputs:
        +---------------------------------------------------+--------+
        | Texts                                             | Labels |
        +===================================================+========+
        | (query, positive, negative_1, ..., negative_n)    | none   |
        +---------------------------------------------------+--------+

    Example:
        ::

            model = SentenceTransformer("all-MiniLM-L6-v2")
            data = Dataset.from_dict({"query": [...], "positive": [...], "negative_1": [...]})
            SentenceTransformerTrainer(model=model, train_dataset=data, loss=TieredInfoNCELoss(model)).train()

    Args:
        model: the model that is trained.
        temperature: what the cosine similarities are divided by.
        micro_batch_size: texts per forward pass.
    """

    def __init__(self, model: SentenceTransformer, temperature: float = 0.05, micro_batch_size: int = 16) -> None:
        super().__init__()
        self.model = model
        self.temperature = temperature
        self.micro_batch_size = micro_batch_size

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None = None) -> Tensor:
        """Return the mean loss of a batch, a scalar."""
        columns = list(sentence_features)
        count = columns[0]["input_ids"].shape[0]
        # (batch_size * columns, dim)
        vectors = embed_sorted(self.model, columns, self.micro_batch_size)
        # (batch_size, candidates)
        scores = vectors[:count] @ vectors[count:].T / self.temperature
        excluded = self._excluded([column["input_ids"] for column in columns])
        target = torch.arange(count, device=scores.device)
        return nn.functional.cross_entropy(scores.masked_fill(excluded, float("-inf")), target)

    @staticmethod
    def _excluded(ids: list[Tensor]) -> Tensor:
        """Return which candidates do not count for a query: bool of shape (batch_size, candidates)."""
        count = ids[0].shape[0]
        longest = max(column.shape[1] for column in ids[1:])
        # (candidates, length)
        candidates = torch.cat([_padded_to(column, longest) for column in ids[1:]])
        same_text = _same_rows(candidates, candidates)
        repeated = same_text.tril(diagonal=-1).any(dim=1)
        same_query = _same_rows(ids[0], ids[0])
        # a candidate that equals a positive of the same query, in any row
        positive_elsewhere = (same_query.float() @ same_text[:count].float()) > 0
        excluded = positive_elsewhere | repeated[None]
        excluded[torch.arange(count), torch.arange(count)] = False
        return excluded

    def get_config_dict(self) -> dict[str, Any]:
        """Return the settings that the model card shows."""
        return {"temperature": self.temperature, "micro_batch_size": self.micro_batch_size}
