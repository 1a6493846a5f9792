"""After the gradient steps of `full` and `lora`: weight averaging, the limit on forgetting, score calibration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hins_memory.encoders.encoder import Encoder
from hins_memory.encoders.score_offset import without_score_offset
from hins_memory.training.auxiliary_data import AuxiliaryData
from hins_memory.training.postprocess.calibration import calibrate_scores
from hins_memory.training.postprocess.forgetting import limit_forgetting
from hins_memory.training.postprocess.weight_averaging import average_weights
from hins_memory.training.settings import TrainSettings
from hins_memory.training.tower.model import document_side

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = ["postprocess_weights", "without_added_layers"]


def without_added_layers(encoder: Encoder) -> SentenceTransformer:
    """Return an encoder's model without the layers that an earlier training added behind it."""
    return without_score_offset(document_side(encoder.model))


def postprocess_weights(
    model: SentenceTransformer, base: Encoder, auxiliary: AuxiliaryData, settings: TrainSettings
) -> tuple[SentenceTransformer, dict[str, Any]]:
    """Average a trained model's weights with the base's, limit forgetting, and calibrate the scores.

    Args:
        model: the trained model; its weights may be changed.
        base: what training started from.
        auxiliary: the sets that must not get much worse, and the queries that scores are calibrated on.
        settings: `averaging_weight`, `calibrate_scores` and `score_thresholds` count.

    Returns:
        The model, and what was measured: what `limit_forgetting` returns, and with `calibrate_scores` what
        `calibrate_scores` returns.
    """
    measured: dict[str, Any] = {}
    if settings.averaging_weight < 1 or auxiliary.general or auxiliary.skills:
        base_model = without_added_layers(base)
        average_weights(model, base_model, settings.averaging_weight)
        measured |= limit_forgetting(
            base,
            auxiliary,
            trained=lambda: Encoder(model, "trained", cache_size=0),
            scale_update=lambda factor: average_weights(model, base_model, factor),
        )
    if settings.calibrate_scores:
        samples = auxiliary.heldout_queries or auxiliary.training_queries
        model, scores = calibrate_scores(model, base, samples, settings.score_thresholds)
        measured |= scores
    return model, measured
