"""The training loss: InfoNCE over in-batch and mined negatives of all processes, every candidate text counted once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hins_memory.training.loss.gathering import gathered, process_rank
from hins_memory.training.loss.gradient_cache import cached_loss, embed, micro_batches, text_keys

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = ["TieredInfoNCELoss", "embed_sorted"]

#: From this many texts a step (in a process) on, or from this many forward passes on, gradients are cached, unless the
#: caller says otherwise. A small micro-batch says that memory is short.
CACHE_FROM, CACHE_FROM_PASSES = 1024, 64


def embed_sorted(model: nn.Module, columns: list[dict[str, Any]], micro_batch_size: int) -> Tensor:
    """Embed the texts of several columns in micro-batches of similar length, without padding waste.

    Args:
        model: a sentence-transformers model.
        columns: tokenised columns, each with ``input_ids`` and ``attention_mask`` of shape (n_i, length_i).
        micro_batch_size: texts per forward pass.

    Returns:
        Unit vectors of shape (sum of n_i, dim), in the order of the columns, float32.
    """
    return embed(model, micro_batches(columns, micro_batch_size))


class TieredInfoNCELoss(nn.Module):
    """InfoNCE over the positives and the mined negatives of a whole batch, those of other processes included.

    For each query, every positive and every negative of the batch is a candidate. Left out of a query's candidates
    are: texts equal to its own positive, positives of the same query in another row, and repetitions of a text. Under
    ``torchrun`` or ``accelerate launch`` the candidates of all processes count, with their gradients, so that the mean
    over processes is the loss of one process on the whole batch.

    Args:
        model: the model that is trained.
        temperature: what the cosine similarities are divided by.
        micro_batch_size: texts per forward pass.
        gradient_cache: embed twice and hold the activations of one micro-batch only (see `cached_loss`); None does so
            from 1024 texts a step on, or from 64 micro-batches.

    Inputs:
        (query, positive) pairs, or (query, positive, negative_1, ..., negative_n); no labels.

    Shapes:
        Each text column: ``input_ids`` and ``attention_mask`` of shape (batch_size, length), padded on either side.
        The loss is a scalar.

    Example:
        ::

            from datasets import Dataset
            from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
            from hins_memory.training.loss.loss import TieredInfoNCELoss

            model = SentenceTransformer("all-MiniLM-L6-v2")
            data = Dataset.from_dict({
                "query": ["What does Ann play?", "Where does Bo live?"],
                "positive": ["Ann: I play the cello.", "Bo: I moved to Oslo."],
                "negative_1": ["Bo: I play chess.", "Ann: Berlin is home."],
            })
            SentenceTransformerTrainer(model=model, train_dataset=data, loss=TieredInfoNCELoss(model)).train()

    References:
        - InfoNCE: https://arxiv.org/abs/1807.03748
        - Tiers, HiNS: https://arxiv.org/abs/2601.14857
        - Gradient caching, GradCache: https://arxiv.org/abs/2101.06983
    """

    def __init__(
        self,
        model: SentenceTransformer,
        *,
        temperature: float = 0.05,
        micro_batch_size: int = 16,
        gradient_cache: bool | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.temperature = temperature
        self.micro_batch_size = micro_batch_size
        self.gradient_cache = gradient_cache

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: Tensor | None = None) -> Tensor:
        """Return the mean loss of this process's part of a batch, a scalar; the trainer passes no labels."""
        columns = list(sentence_features)
        texts = micro_batches(columns, self.micro_batch_size)
        # (columns, batch_size)
        keys = torch.stack([text_keys(column) for column in columns])
        count = keys.shape[1]
        target = process_rank() * count + torch.arange(count, device=keys.device)
        excluded = _excluded(keys)
        # The positive itself is always a candidate.
        excluded[torch.arange(count, device=keys.device), target] = False

        def loss_of(vectors: Tensor) -> Tensor:
            queries, candidates = _split(vectors.view(*keys.shape, -1))
            # (batch_size, candidates)
            scores = (queries @ candidates.T / self.temperature).masked_fill(excluded, float("-inf"))
            return nn.functional.cross_entropy(scores, target)

        if torch.is_grad_enabled() and self._caches(keys.numel()):
            return cached_loss(self.model, texts, loss_of)
        return loss_of(embed(self.model, texts))

    def _caches(self, texts: int) -> bool:
        limit = min(CACHE_FROM, CACHE_FROM_PASSES * self.micro_batch_size)
        return texts > limit if self.gradient_cache is None else self.gradient_cache

    def get_config_dict(self) -> dict[str, Any]:
        """Return the settings that the model card shows."""
        return {
            "temperature": self.temperature,
            "micro_batch_size": self.micro_batch_size,
            "gradient_cache": "auto" if self.gradient_cache is None else self.gradient_cache,
        }


def _split(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Return this process's queries and the candidates of all, the positives first: (batch_size, dim), (m, dim)."""
    return vectors[0], gathered(vectors[1:]).flatten(0, 1)


def _excluded(keys: Tensor) -> Tensor:
    """Return which candidates are left out: bool of shape (batch_size, candidates).

    Args:
        keys: of this process's texts, of shape (columns, batch_size).
    """
    everyone = gathered(keys)
    candidates = everyone[1:].flatten()
    same_query = keys[0][:, None] == everyone[0][None]
    same_positive = everyone[1][:, None] == candidates[None]
    # a candidate that equals a positive of the same query, in any row
    positive_elsewhere = (same_query.float() @ same_positive.float()) > 0
    return positive_elsewhere | _repeated(candidates)[None]


def _repeated(keys: Tensor) -> Tensor:
    """Return which keys have occurred before: bool of shape (n,)."""
    ordered, order = torch.sort(keys, stable=True)
    repeated = torch.zeros_like(keys, dtype=torch.bool)
    repeated[order[1:]] = ordered[1:] == ordered[:-1]
    return repeated
