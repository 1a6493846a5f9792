"""Training in the `query` mode, from examples to a model with a query map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hins_memory.encoders.encoder import Encoder
from hins_memory.training.auxiliary_data import AuxiliaryData
from hins_memory.training.postprocess.calibration import share_table
from hins_memory.training.postprocess.forgetting import limit_forgetting
from hins_memory.training.query_mode.example_vectors import ExampleVectors
from hins_memory.training.query_mode.query_map import (
    calibrate_query_map,
    fit_query_map,
    with_query_map,
    without_query_map,
)
from hins_memory.training.query_samples import SampleVectors
from hins_memory.training.settings import TrainSettings
from hins_memory.types import Progress, TieredExample

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = ["train_query_map"]


def train_query_map(
    encoder: Encoder,
    examples: Sequence[TieredExample],
    auxiliary: AuxiliaryData,
    settings: TrainSettings,
    progress: Progress | None,
) -> tuple[SentenceTransformer, list[dict[str, Any]], dict[str, Any]]:
    """Train a map of an encoder's queries; its documents keep their vectors.

    A map that the encoder has already is replaced, not added to.

    Returns:
        The model; a dictionary for each step; what was measured: ``general`` of `limit_forgetting` where there is a
        general set, and ``{"cutoffs": {"0.5": [share of the top results that reach it under the base, and now]}}``.

    Raises:
        TrainingError: the loss is not a finite number.
    """
    import torch

    model = without_query_map(encoder.model)
    # The encoder itself where it has no map: mining has embedded the examples' texts with it.
    base = encoder if model is encoder.model else Encoder(model, encoder.version, space=encoder.space)
    sample = SampleVectors(auxiliary.training_queries, base)
    vectors = ExampleVectors(examples, base)
    query_map, history = fit_query_map(vectors, sample, settings, progress)
    calibrate = settings.calibrate_scores and bool(auxiliary.heldout_queries)
    if calibrate:
        sample = SampleVectors(auxiliary.heldout_queries, base)
        calibrate_query_map(query_map, sample, settings.score_thresholds)

    def trained() -> Encoder:
        return Encoder(with_query_map(model, query_map), "trained", cache_size=0, space=encoder.space)

    def scale_update(factor: float) -> None:
        query_map.scale(factor)
        if calibrate:
            calibrate_query_map(query_map, sample, settings.score_thresholds)

    measured: dict[str, Any] = {**limit_forgetting(encoder, auxiliary, trained, scale_update)}
    with torch.no_grad():
        mapped = [query_map(queries) for queries in sample.queries]
        scores = (sample.all_top_scores(), sample.all_top_scores(mapped))
    shares = share_table(scores, settings.score_thresholds)
    return with_query_map(model, query_map), history, measured | {"cutoffs": shares}
