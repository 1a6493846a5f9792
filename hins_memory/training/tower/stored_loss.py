"""The loss of a tower: InfoNCE of queries against stored vectors, which are not computed."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hins_memory.training.loss.gradient_cache import embed, micro_batches
from hins_memory.training.query_samples import RESULTS
from hins_memory.training.tower.targets import Target, Targets

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = ["StoredVectorsLoss"]

# Enough that calibration meets the thresholds afterwards; more costs accuracy.
_DRIFT_WEIGHT = 60.0


class StoredVectorsLoss(nn.Module):
    """InfoNCE of each query against its own stored negatives; the mean over its positives, by how sure they are.

    For a positive p with the cosine s_p, the loss is -log(e^{s_p/t} / (e^{s_p/t} + sum over negatives of e^{s_n/t})):
    other positives of the query do not count. A sampled negative counts for all that it stands for (sampled softmax
    with its correction), so that the loss estimates that over the whole store.

    The loss does not see how high all scores of a query are; with `hold_scores`, their mean over its best results is
    held where it was: `_DRIFT_WEIGHT` times the mean squared difference is added.

    Args:
        model: the encoder of the queries.
        targets: what each query is to find; the labels of a batch are places in it.
        temperature: what cosines are divided by.
        micro_batch_size: queries per forward pass.
        hold_scores: whether the heights of scores are held.

    Inputs:
        One text column, the queries, and labels of shape (batch_size,).

    References:
        - InfoNCE: https://arxiv.org/abs/1807.03748
        - Sampled softmax: https://arxiv.org/abs/1412.2007
    """

    def __init__(
        self,
        model: SentenceTransformer,
        targets: Targets,
        *,
        temperature: float = 0.05,
        micro_batch_size: int = 16,
        hold_scores: bool = True,
    ) -> None:
        super().__init__()
        self.model = model
        self.temperature = temperature
        self.micro_batch_size = micro_batch_size
        self._targets = targets
        self._hold_scores = hold_scores

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: Tensor) -> Tensor:
        """Return the mean loss of a batch, a scalar."""
        queries = embed(self.model, micro_batches(list(sentence_features), self.micro_batch_size))
        losses = [
            self._loss(query, self._targets[place]) for query, place in zip(queries, labels.tolist(), strict=True)
        ]
        return torch.stack(losses).mean()

    def _loss(self, query: Tensor, target: Target) -> Tensor:
        # (positives + negatives,)
        cosines = torch.from_numpy(self._targets.vectors(target)).to(query.device) @ query
        scores = cosines / self.temperature
        found, others = scores[: len(target.positives)], scores[len(target.positives) :]
        if target.sampled:
            stands_for = math.log(target.population / target.sampled)
            others = torch.cat([others[: -target.sampled], others[-target.sampled :] + stands_for])
        losses = torch.logaddexp(found, others.logsumexp(dim=0)) - found
        loss = (losses * torch.from_numpy(target.weights).to(query.device)).sum()
        if self._hold_scores and target.height is not None:
            best = cosines.topk(min(RESULTS, len(cosines))).values
            loss = loss + _DRIFT_WEIGHT * (best.mean() - target.height).square()
        return loss

    def get_config_dict(self) -> dict[str, Any]:
        """Return the settings that the model card shows."""
        return {
            "temperature": self.temperature,
            "micro_batch_size": self.micro_batch_size,
            "negatives": "stored vectors",
        }
