"""The `query` mode: a small residual map on queries only, trained on vectors; documents keep the vectors they have."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hins_memory.encoders.layers import affine_layer, layers
from hins_memory.encoders.score_offset import with_modules
from hins_memory.errors import TrainingError
from hins_memory.training.fit.dataset import batch_stream
from hins_memory.training.postprocess.calibration import max_share_difference, shares_above
from hins_memory.training.query_mode.example_vectors import ExampleVectors
from hins_memory.training.query_samples import SampleVectors
from hins_memory.training.settings import TrainSettings
from hins_memory.types import Progress

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import Tensor

__all__ = ["QueryMap", "calibrate_query_map", "fit_query_map", "with_query_map", "without_query_map"]

# Rank of the map: about 100 kB for an encoder of 384 dimensions.
_RANK = 32
# Weight of the score drift in the loss: scores stay near the base's, at some cost in accuracy.
_DRIFT_WEIGHT = 100.0
# The shifts that are tried along the mean of the texts: this many steps of this size, in both directions.
_SHIFT_STEPS, _SHIFT_STEP = 60, 0.01


class QueryMap:
    """The map q -> normalise(q + U V q + b): the identity at first, of rank `rank`, with a shift b.

    Args:
        dim: length of the vectors.
        rank: rank of the update.
        seed: seeds V; U and b begin at zero.
    """

    def __init__(self, dim: int, rank: int, seed: int) -> None:
        import torch

        generator = torch.Generator().manual_seed(seed)
        self.down = torch.nn.Parameter(torch.randn(min(rank, dim), dim, generator=generator) / math.sqrt(dim))
        self.up = torch.nn.Parameter(torch.zeros(dim, min(rank, dim)))
        self.shift = torch.nn.Parameter(torch.zeros(dim))

    def parameters(self) -> list[Tensor]:
        """Return what is trained."""
        return [self.down, self.up, self.shift]

    def __call__(self, queries: Tensor) -> Tensor:
        """Map unit vectors of shape (n, dim) to unit vectors of shape (n, dim)."""
        import torch

        return torch.nn.functional.normalize(queries + (queries @ self.down.T) @ self.up.T + self.shift, dim=-1)

    def scale(self, factor: float) -> None:
        """Multiply the map's difference from the identity by a factor from 0 to 1."""
        import torch

        with torch.no_grad():
            self.up.mul_(factor)
            self.shift.mul_(factor)

    def matrix(self) -> tuple[Tensor, Tensor]:
        """Return the map before the normalisation as a matrix, of shape (dim, dim), and a shift, of shape (dim,)."""
        import torch

        with torch.no_grad():
            return torch.eye(self.up.shape[0]) + self.up @ self.down, self.shift.clone()


def fit_query_map(
    vectors: ExampleVectors, sample: SampleVectors, settings: TrainSettings, progress: Progress | None = None
) -> tuple[QueryMap, list[dict[str, Any]]]:
    """Train the map on vectors: InfoNCE over the batch's positives and negatives, plus a penalty on score drift.

    The penalty is `_DRIFT_WEIGHT` times the mean squared difference between the scores of a query's top results now
    and under the base, both sorted: which texts are at the top may change, how high their scores are may not. It is
    computed on the sample, most of which is not trained on.

    Args:
        vectors: the examples as vectors.
        sample: queries with the texts that were searched, as vectors of the same encoder.
        settings: how; rate, temperature, batch size, number of passes, calibrate_scores, averaging_weight, seed.
        progress: called as (``train``, steps done, steps in all).

    Returns:
        The map, and a dictionary for each step: ``step``, ``loss``, ``learning_rate``, ``grad_norm``, ``seconds``.

    Raises:
        TrainingError: the loss is not a finite number.
    """
    import numpy as np
    import torch

    started = time.perf_counter()
    query_map = QueryMap(vectors.queries.shape[1], _RANK, settings.seed)
    optimizer = torch.optim.AdamW(query_map.parameters(), lr=settings.rate, weight_decay=0.01)
    count = len(vectors.queries)
    steps = settings.steps(count)
    base_scores = [sample.top_scores(owner) for owner in range(len(sample))]
    random = np.random.default_rng(settings.seed)
    history: list[dict[str, Any]] = []
    for step, rows in enumerate(batch_stream(count, settings.batch(count), steps, settings.seed), start=1):
        rate = settings.rate * min(1.0, step / max(1.0, settings.warmup_steps(steps))) * (steps - step + 1) / steps
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = vectors.loss(query_map(vectors.queries[rows]), rows, settings.temperature)
        if settings.calibrate_scores:
            owner = int(random.integers(len(sample)))
            drift = sample.top_scores(owner, query_map(sample.queries[owner])) - base_scores[owner]
            loss = loss + _DRIFT_WEIGHT * drift.square().mean()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingError(f"The loss became {value} at step {step} of {steps}.", "Lower the learning rate.")
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = math.sqrt(sum(float(one.grad.square().sum()) for one in query_map.parameters() if one.grad is not None))
        optimizer.step()
        history.append({"step": step, "loss": value, "learning_rate": rate, "grad_norm": norm})
        history[-1]["seconds"] = round(time.perf_counter() - started, 3)
        if progress:
            progress("train", step, steps)
    query_map.scale(settings.averaging_weight)
    return query_map, history


def calibrate_query_map(query_map: QueryMap, sample: SampleVectors, thresholds: Sequence[float]) -> None:
    """Shift the map along the mean of the texts, so that as many scores reach the thresholds as without the map.

    All scores rise or fall by about the same amount, so that rankings hardly change. The largest relative difference
    of a share is made as small as one number can.

    Args:
        query_map: its shift is changed.
        sample: queries with the texts that were searched, best of conversations that are not trained on.
        thresholds: the cosines that matter.
    """
    import torch

    with torch.no_grad():
        mean = torch.nn.functional.normalize(torch.cat(sample.texts).mean(dim=0), dim=0)
        start, wanted = query_map.shift.clone(), shares_above(sample.all_top_scores(), thresholds)
        costs = {}
        for step in range(-_SHIFT_STEPS, _SHIFT_STEPS + 1):
            query_map.shift.copy_(start + step * _SHIFT_STEP * mean)
            scores = sample.all_top_scores([query_map(queries) for queries in sample.queries])
            costs[step] = max_share_difference(wanted, shares_above(scores, thresholds)), abs(step)
        query_map.shift.copy_(start + min(costs, key=costs.__getitem__) * _SHIFT_STEP * mean)


def with_query_map(model: SentenceTransformer, query_map: QueryMap) -> SentenceTransformer:
    """Return a model of sentence-transformers' own modules that maps queries after embedding them.

    The last module is a Router: queries go through a Dense layer with the map's matrix, documents (and texts of no
    named role) are left as they are. Any program that loads sentence-transformers folders loads it; hins-memory is
    not needed.
    """
    Normalize, Router = layers().Normalize, layers().Router
    trunk = without_query_map(model)
    dense = affine_layer(*query_map.matrix())
    # The map is made for unit vectors, which not every model ends with.
    modules = [module for module in trunk.children() if not isinstance(module, Normalize)]
    router = Router({"query": [Normalize(), dense, Normalize()], "document": [Normalize()]}, default_route="document")
    return with_modules(model, [*modules, router])


def without_query_map(model: SentenceTransformer) -> SentenceTransformer:
    """Return the model without the Router that `with_query_map` put last; any other model as it is."""
    Normalize, Router = layers().Normalize, layers().Router

    modules = list(model.children())
    last = modules[-1]
    if not isinstance(last, Router) or len(modules) == 1:
        return model
    routes = {name: [type(module) for module in route] for name, route in last.sub_modules.items()}
    if routes.get("document") != [Normalize] or set(routes) != {"query", "document"}:
        return model
    return with_modules(model, [*modules[:-1], Normalize()])
