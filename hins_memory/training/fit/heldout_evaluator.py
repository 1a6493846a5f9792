"""Evaluation on held-out queries during training, for early stopping."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from sentence_transformers.evaluation import SentenceEvaluator

from hins_memory.evaluation import EvalSet, evaluate_encoder

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from hins_memory.encoders.encoder import Encoder

__all__ = ["METRIC", "HeldOutEvaluator"]

#: The metric of early stopping, 0 to 1.
METRIC = "held_out_ndcg@10"


class HeldOutEvaluator(SentenceEvaluator):  # type: ignore[misc]
    """nDCG@10 of a model on held-out sets, as the gate measures it.

    Args:
        sets: labelled queries of conversations that are not trained on.
        encoder_of: returns the encoder to evaluate for a model in training.
    """

    def __init__(self, sets: Sequence[EvalSet], encoder_of: Callable[[SentenceTransformer], Encoder]) -> None:
        super().__init__()
        self.name = "held_out"
        self.primary_metric = METRIC
        self._sets = sets
        self._encoder_of = encoder_of

    def __call__(
        self, model: SentenceTransformer, output_path: str | None = None, epoch: float = -1, steps: int = -1
    ) -> dict[str, float]:
        """Return {"held_out_ndcg@10": mean over queries}; nothing is written."""
        scores = evaluate_encoder(self._encoder_of(model), self._sets, ks=(10,)).mean()
        metrics = {METRIC: scores["ndcg@10"]}
        self.store_metrics_in_model_card_data(model, metrics, epoch, steps)
        return metrics

    def get_config_dict(self) -> dict[str, Any]:
        """Return what the model card shows: how many queries and sets were held out."""
        return {"queries": sum(len(one.queries) for one in self._sets), "sets": len(self._sets)}
