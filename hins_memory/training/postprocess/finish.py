"""What follows the gradient steps: weight averaging, the scale of the scores; and the whole of the query mode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from hins_memory.encoders.encoder import Encoder
from hins_memory.training.postprocess.traffic import Samples, TrafficVectors
from hins_memory.training.settings import TrainSettings
from hins_memory.types import TieredExample

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = ["finished", "plain_model", "train_queries"]

Progress = Callable[[str, int, int], None]


def plain_model(encoder: Encoder) -> SentenceTransformer:
    """Return an encoder's model without the layers that an earlier training has put behind it."""
    from hins_memory.encoders.score_offset import without_lift
    from hins_memory.training.postprocess.query_map import without_query_map

    return without_lift(without_query_map(encoder.model))


def finished(
    model: SentenceTransformer, base: Encoder, samples: Samples, settings: TrainSettings
) -> tuple[SentenceTransformer, dict[str, Any]]:
    """Average a trained model with its base, so that nothing is forgotten, and bring its scores back to its scale.

    Args:
        model: the trained model; its weights may be changed.
        base: what training started from.
        samples: the general set, and queries with the texts that they were asked of.
        settings: `soup`, `anchor` and `cutoffs` count.

    Returns:
        The model, and what was measured: ``general`` of `hold_general` where there is a set, and with an anchor what
        `calibrated` gives.
    """
    from hins_memory.training.postprocess.calibration import calibrated
    from hins_memory.training.postprocess.forgetting import hold_general
    from hins_memory.training.postprocess.interpolate import blend

    measured: dict[str, Any] = {}
    if settings.soup < 1 or samples.general:
        plain = plain_model(base)
        blend(model, plain, settings.soup)
        if samples.general:
            measured["general"] = hold_general(
                base,
                samples.general,
                _general_loss(samples, settings),
                lambda: Encoder(model, "trained", cache_size=0),
                lambda share: blend(model, plain, share),
            )
    if settings.anchor:
        model, scores = calibrated(model, base, samples.unseen or samples.traffic, settings.cutoffs)
        measured |= scores
    return model, measured


def _general_loss(samples: Samples, settings: TrainSettings) -> float:
    return samples.general_loss if settings.max_general_loss is None else settings.max_general_loss


def train_queries(
    encoder: Encoder,
    examples: Sequence[TieredExample],
    samples: Samples,
    settings: TrainSettings,
    progress: Progress | None,
) -> tuple[SentenceTransformer, list[dict[str, Any]], dict[str, Any]]:
    """Train a map of the queries of an encoder, whose documents keep their vectors.

    A map that the encoder has already is replaced, not added to.

    Returns:
        The model; a dictionary for each step; what was measured: ``general`` of `hold_general` where there is a set,
        and ``{"cutoffs": {"0.5": [share of the best results that reach it under the base, and now]}}``.

    Raises:
        TrainingError: the loss is no longer a number.
    """
    import torch

    from hins_memory.training.postprocess.calibration import shares_above
    from hins_memory.training.postprocess.candidates import Candidates
    from hins_memory.training.postprocess.forgetting import hold_general
    from hins_memory.training.postprocess.query_map import fit_query_map, level, with_query_map, without_query_map

    model = without_query_map(encoder.model)
    plain = Encoder(model, encoder.version, cache_size=0, space=encoder.space)
    sample = TrafficVectors(samples.traffic, plain)
    found, history = fit_query_map(Candidates(examples, settings.negatives, plain), sample, settings, progress)
    levelled = settings.anchor and bool(samples.unseen)
    if levelled:
        sample = TrafficVectors(samples.unseen, plain)
        level(found, sample, settings.cutoffs)

    def mapped() -> Encoder:
        return Encoder(with_query_map(model, found), "trained", cache_size=0, space=encoder.space)

    def weaken(share: float) -> None:
        found.weaken(share)
        if levelled:
            level(found, sample, settings.cutoffs)

    measured: dict[str, Any] = {}
    if samples.general:
        limit = _general_loss(samples, settings)
        measured["general"] = hold_general(encoder, samples.general, limit, mapped, weaken)
    with torch.no_grad():
        after = [sample.best_scores(owner, found(one)).flatten() for owner, one in enumerate(sample.queries)]
    shares = [shares_above(scores, settings.cutoffs) for scores in (sample.all_best_scores(), torch.cat(after))]
    scores = {f"{cutoff:g}": [round(row[at], 5) for row in shares] for at, cutoff in enumerate(settings.cutoffs)}
    return with_query_map(model, found), history, measured | {"cutoffs": scores}
