"""A loss that keeps the vectors of some texts where the base has them, beside the loss of the examples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from hins_memory.data.examples import without_surrogates
from hins_memory.training.loss.gradient_cache import embed, micro_batches
from hins_memory.training.loss.loss import TieredInfoNCELoss

if TYPE_CHECKING:
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer

__all__ = ["DistilledLoss", "with_kept"]

#: The column of kept texts, behind those of the examples.
_COLUMN = "kept"


def with_kept(dataset: Dataset, texts: Sequence[str], seed: int) -> tuple[Dataset, list[str]]:
    """Return a dataset in which each row has one of the texts too, its number as the label, and the numbered texts.

    Args:
        dataset: text columns; their order is kept.
        texts: what is kept, at least one. Each is used about equally often; where there are fewer rows than texts, as
            many as there are rows are drawn.
        seed: which texts are drawn, and which row gets which.
    """
    import numpy as np

    random = np.random.default_rng(seed)
    kept = [without_surrogates(text) for text in texts]
    if len(dataset) < len(kept):
        kept = [kept[place] for place in random.permutation(len(kept))[: len(dataset)].tolist()]
    rounds = -(-len(dataset) // len(kept))
    order = np.concatenate([random.permutation(len(kept)) for _ in range(rounds)])[: len(dataset)].tolist()
    return dataset.add_column(_COLUMN, [kept[place] for place in order]).add_column("label", order), kept


class DistilledLoss(nn.Module):
    """The loss of the examples plus a weight times the mean of 1 - cosine of kept texts with the base's vectors.

    Distillation to the encoder itself as it was (learning without forgetting, https://arxiv.org/abs/1606.09282), on
    text that is not of the task.

    Args:
        model: the model that is trained; its vectors as they are now are kept.
        loss: the loss of the examples.
        texts: the kept texts that labels count.
        weight: of the second part, above 0.

    Inputs:
        The columns of `loss`, then one of kept texts; labels are their numbers in `texts`.
    """

    vectors: Tensor

    def __init__(
        self, model: SentenceTransformer, loss: TieredInfoNCELoss, texts: Sequence[str], weight: float
    ) -> None:
        super().__init__()
        # Where several processes train, the trainer wraps the model and sets it here, and then in the other loss too.
        self.model = model
        self.loss = loss
        self.weight = weight
        # (n, dim)
        vectors = model.encode_document(list(texts), normalize_embeddings=True, convert_to_tensor=True)
        self.register_buffer("vectors", vectors.float().clone(), persistent=False)

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: Tensor) -> Tensor:
        """Return the loss of this process's part of a batch, a scalar."""
        *columns, texts = sentence_features
        found = embed(self.model, micro_batches([texts], self.loss.micro_batch_size))
        kept = nn.functional.cosine_similarity(found, self.vectors[labels], dim=1)
        loss: Tensor = self.loss(columns) + self.weight * (1 - kept).mean()
        return loss

    def get_config_dict(self) -> dict[str, Any]:
        """Return the settings that the model card shows."""
        return {**self.loss.get_config_dict(), "distillation": self.weight}
