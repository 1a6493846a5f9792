"""The training loss: InfoNCE over in-batch and mined negatives of all processes, every candidate text counted once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hins_memory.train.gathering import gathered, process_rank
from hins_memory.train.gradient_cache import cached_loss, embed, micro_batches

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = ["LossSettings", "TieredInfoNCELoss", "embed_sorted", "text_keys"]

#: From so many texts a step (in a process) on, gradients are cached unless the settings say otherwise.
CACHE_FROM = 1024
# Odd multipliers of splitmix64, as signed numbers: keys are sums of products modulo 2**64.
_GOLDEN, _MIX = -7046029254386353131, -4658895280553007687


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


def text_keys(column: dict[str, Any]) -> Tensor:
    """Return a number for each text, which texts of the same tokens share whatever their padding: int64 of shape (n,).

    Different texts share one with a chance of the order of 2**-46 (multilinear hashing).
    """
    mask = column["attention_mask"].long()
    # (n, length): 1 for the first token of the text, 2 for the second ...
    place = mask.cumsum(dim=1)
    factors = place * _GOLDEN
    factors = (factors ^ (factors >> 29)) * _MIX
    factors = (factors ^ (factors >> 32)) | 1
    keys: Tensor = (mask * (column["input_ids"].long() + 1) * factors).sum(dim=1) + mask.sum(dim=1)
    return keys


@dataclass(frozen=True, slots=True)
class LossSettings:
    """Settings of `TieredInfoNCELoss`.

    Args:
        temperature: what the cosine similarities are divided by.
        micro_batch_size: texts per forward pass.
        gradient_cache: embed twice and hold the activations of one micro-batch only (see `cached_loss`); None does so
            from 1024 texts a step on.
        dims: shorter lengths whose truncated and normalised vectors the loss is averaged over too (Matryoshka).
        guide_margin: a candidate that the guide scores above the positive less this margin is left out.
    """

    temperature: float = 0.05
    micro_batch_size: int = 16
    gradient_cache: bool | None = None
    dims: tuple[int, ...] = ()
    guide_margin: float = 0.0


class TieredInfoNCELoss(nn.Module):
    """InfoNCE over the positives and the mined negatives of a whole batch, those of other processes included.

    For each query, every positive and every negative of the batch is a candidate. Left out of a query's candidates
    are: texts equal to its own positive, positives of the same query in another row, and repetitions of a text; with a
    guide, also candidates that the guide takes for as relevant as the positive. A query's own negatives may be
    weighted by tier. Under ``torchrun`` or ``accelerate launch`` the candidates of all processes count, with their
    gradients, so that the mean over processes is the loss of one process on the whole batch.

    Args:
        model: the model that is trained.
        settings: temperature, micro-batches, gradient caching, Matryoshka dimensions, margin of the guide.
        guide: a frozen model with the same tokenizer, e.g. a copy of the base, that false negatives are found by.

    Inputs:
        +---------------------------------------------------+---------------------------------------------+
        | Texts                                             | Labels                                      |
        +===================================================+=============================================+
        | (query, positive) pairs                           | none                                        |
        +---------------------------------------------------+---------------------------------------------+
        | (query, positive, negative_1, ..., negative_n)    | none, or the weights of the n negatives: 1  |
        |                                                   | is as much as any candidate, 0 leaves it out|
        +---------------------------------------------------+---------------------------------------------+

    Shapes:
        Each text column: ``input_ids`` and ``attention_mask`` of shape (batch_size, length), padded on either side.
        Labels: (batch_size, n). The loss is a scalar.

    Example:
        ::

            from datasets import Dataset
            from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
            from hins_memory.train.loss import TieredInfoNCELoss

            model = SentenceTransformer("all-MiniLM-L6-v2")
            data = Dataset.from_dict({
                "query": ["What does Ann play?", "Where does Bo live?"],
                "positive": ["Ann: I play the cello.", "Bo: I moved to Oslo."],
                "negative_1": ["Bo: I play chess.", "Ann: Berlin is home."],
                "label": [[1.0], [0.5]],
            })
            SentenceTransformerTrainer(model=model, train_dataset=data, loss=TieredInfoNCELoss(model)).train()

    References:
        - InfoNCE: https://arxiv.org/abs/1807.03748
        - Tiers, HiNS: https://arxiv.org/abs/2601.14857
        - Guide, GISTEmbed: https://arxiv.org/abs/2402.16829
        - Gradient caching, GradCache: https://arxiv.org/abs/2101.06983
        - Matryoshka representation learning: https://arxiv.org/abs/2205.13147
    """

    def __init__(
        self,
        model: SentenceTransformer,
        settings: LossSettings | None = None,
        guide: SentenceTransformer | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.settings = settings or LossSettings()
        self.guide = guide.eval().requires_grad_(False) if guide is not None else None

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: Tensor | None = None) -> Tensor:
        """Return the mean loss of this process's part of a batch, a scalar."""
        columns = list(sentence_features)
        batches = micro_batches(columns, self.settings.micro_batch_size)
        # (columns, batch_size)
        keys = torch.stack([text_keys(column) for column in columns])
        count = keys.shape[1]
        target = process_rank() * count + torch.arange(count, device=keys.device)
        with torch.no_grad():
            bias = _bias(keys, target, labels)
            if self.guide is not None:
                guided = embed(self.guide, batches).view(*keys.shape, -1)
                bias = bias.masked_fill(self._guided_out(guided, target), float("-inf"))
            # the positive itself always counts
            bias[torch.arange(count, device=bias.device), target] = 0.0

        def loss_of(vectors: Tensor) -> Tensor:
            return self._loss(vectors.view(*keys.shape, -1), target, bias)

        if torch.is_grad_enabled() and self._caches(keys.numel()):
            return cached_loss(self.model, batches, loss_of)
        return loss_of(embed(self.model, batches))

    def _caches(self, texts: int) -> bool:
        wanted = self.settings.gradient_cache
        return texts > CACHE_FROM if wanted is None else wanted

    def _loss(self, vectors: Tensor, target: Tensor, bias: Tensor) -> Tensor:
        """Return the loss of vectors of shape (columns, batch_size, dim), averaged over the Matryoshka dimensions."""
        queries, candidates = _split(vectors)
        total = vectors.shape[-1]
        losses = []
        for dim in (*(dim for dim in self.settings.dims if dim < total), total):
            left, right = (nn.functional.normalize(part[:, :dim], dim=-1) for part in (queries, candidates))
            # (batch_size, candidates)
            scores = left @ right.T / self.settings.temperature
            losses.append(nn.functional.cross_entropy(scores + bias, target))
        return torch.stack(losses).mean()

    def _guided_out(self, vectors: Tensor, target: Tensor) -> Tensor:
        """Return which candidates the guide takes for relevant: bool of shape (batch_size, candidates)."""
        queries, candidates = _split(vectors)
        scores = queries @ candidates.T
        return scores > scores.gather(1, target[:, None]) - self.settings.guide_margin

    def get_config_dict(self) -> dict[str, Any]:
        """Return the settings that the model card shows."""
        settings = self.settings
        shown: dict[str, Any] = {
            "temperature": settings.temperature,
            "micro_batch_size": settings.micro_batch_size,
            "gradient_cache": "auto" if settings.gradient_cache is None else settings.gradient_cache,
        }
        if settings.dims:
            shown["dims"] = list(settings.dims)
        if self.guide is not None:
            shown["guide_margin"] = settings.guide_margin
        return shown


def _split(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Return this process's queries and the candidates of all, the positives first: (batch_size, dim), (m, dim)."""
    return vectors[0], gathered(vectors[1:]).flatten(0, 1)


def _bias(keys: Tensor, target: Tensor, weights: Tensor | None) -> Tensor:
    """Return what is added to each score: 0, the logarithm of a tier's weight, or -inf where a candidate is left out.

    Args:
        keys: of this process's texts, of shape (columns, batch_size).
        target: where each query's positive stands among the candidates, of shape (batch_size,).
        weights: of each query's own negatives, of shape (batch_size, columns - 2).

    Returns:
        float32 of shape (batch_size, candidates).
    """
    everyone = gathered(keys)
    candidates = everyone[1:].flatten()
    same_query = keys[0][:, None] == everyone[0][None]
    same_positive = everyone[1][:, None] == candidates[None]
    # a candidate that equals a positive of the same query, in any row
    positive_elsewhere = (same_query.float() @ same_positive.float()) > 0
    bias = torch.zeros(positive_elsewhere.shape, device=keys.device)
    if weights is not None and keys.shape[0] > 2:
        own = keys[2:].T[:, :, None] == candidates[None, None]
        # by text and not by place, because of a text that occurs twice only the first place counts
        weight = (own * weights.float()[:, :, None]).amax(dim=1)
        bias = torch.where(own.any(dim=1), weight.log(), bias)
    return bias.masked_fill(positive_elsewhere | _repeated(candidates)[None], float("-inf"))


def _repeated(keys: Tensor) -> Tensor:
    """Return which keys have occurred before: bool of shape (n,)."""
    ordered, order = torch.sort(keys, stable=True)
    repeated = torch.zeros_like(keys, dtype=torch.bool)
    repeated[order[1:]] = ordered[1:] == ordered[:-1]
    return repeated
