"""Scores of a tower brought back to where they were, by its queries alone: documents cannot move.

A vector that is added to every query raises or lowers the scores of all documents by about as much, where it points
along what they have in common; and makes all of them smaller by the same factor, where it points along what they have
nothing of. Both together meet the shares of results over several cut-offs, and hardly change a ranking.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hins_memory.encoders.score_offset import with_shift
from hins_memory.training.postprocess.calibration import max_share_difference, share_table, shares_above
from hins_memory.training.query_samples import SampleVectors

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import Tensor

    from hins_memory.encoders.encoder import Encoder

__all__ = ["calibrate_tower"]

# What is tried: lengths along either direction, and finer ones around the best.
_RAISES = [step / 10 for step in range(-15, 16)]
_SHRINKS = [step / 10 for step in range(16)]
_FINER = 3
# Of the documents' spread, what counts as spread along every direction, so that noise does not decide.
_RIDGE = 0.1
# Shares may differ by this much, relative to what they were; the gate allows 5%. The last of it would cost most: a
# longer vector moves general retrieval.
_TOLERANCE = 0.03
# A query may get this much longer for a thousandth nearer to the shares, so that rankings change as little as needed.
_COST = 1e-3


def calibrate_tower(
    queries: SentenceTransformer, sides: Encoder, before: SampleVectors, cutoffs: Sequence[float]
) -> tuple[SentenceTransformer, dict[str, Any]]:
    """Return a model of queries whose scores reach the cut-offs as often as those of the base.

    Args:
        queries: the trained model of the queries.
        sides: the same, with the documents' encoder.
        before: queries with the texts that they were asked of under the base, best ones that are not trained on.
        cutoffs: the cosines that matter.

    Returns:
        The model, with a last layer where shares differ by more than 3% without one, and ``{"cutoffs": {"0.5": [share
        under the base, without that layer, with it]}}``.
    """
    import torch

    asked = [torch.from_numpy(sides.encode(one.queries, role="query")) for one in before.samples]
    wanted = shares_above(before.all_top_scores(), cutoffs)
    raising, shrinking = _directions(torch.cat(before.texts))
    sample = _Sample(before, asked, raising, shrinking)
    found = sample.fit(wanted, cutoffs)
    shares = share_table((before.all_top_scores(), sample.scores(0.0, 0.0), sample.scores(*found)), cutoffs)
    if found != (0.0, 0.0):
        queries = with_shift(queries, found[0] * raising + found[1] * shrinking)
    return queries, {"cutoffs": shares}


def _directions(texts: Tensor) -> tuple[Tensor, Tensor]:
    """Return unit vectors of shape (dim,): what all texts have about equally much of, and what they have least of."""
    import torch

    mean = texts.mean(dim=0)
    spread = (texts - mean).T @ (texts - mean) / len(texts)
    ridge = _RIDGE * spread.diagonal().mean() * torch.eye(len(mean))
    raising = torch.nn.functional.normalize(torch.linalg.solve(spread + ridge, mean), dim=0)
    everything = texts.T @ texts / len(texts)
    # In the plane of neither the raising direction nor anything that texts use.
    shrinking = torch.linalg.eigh(everything + torch.outer(raising, raising)).eigenvectors[:, 0]
    return raising, torch.nn.functional.normalize(shrinking - (shrinking @ raising) * raising, dim=0)


class _Sample:
    """Scores of a sample under any length along both directions, without the vectors being made each time."""

    def __init__(self, before: SampleVectors, asked: Sequence[Tensor], raising: Tensor, shrinking: Tensor) -> None:
        self._results = [one.results for one in before.samples]
        pairs = list(zip(asked, before.texts, strict=True))
        self._scores = [queries @ texts.T for queries, texts in pairs]
        self._texts = [(texts @ raising, texts @ shrinking) for _, texts in pairs]
        self._queries = [(queries @ raising, queries @ shrinking) for queries, _ in pairs]

    def scores(self, raised: float, shrunk: float) -> Tensor:
        """Return the scores of the best results of all queries in one row."""
        import torch

        found = []
        for results, scores, texts, queries in zip(
            self._results, self._scores, self._texts, self._queries, strict=True
        ):
            square = 1 + raised**2 + shrunk**2 + 2 * (raised * queries[0] + shrunk * queries[1])
            moved = (scores + raised * texts[0] + shrunk * texts[1]) / square.clamp_min(1e-6).sqrt()[:, None]
            found.append(moved.topk(min(results, moved.shape[1])).values.flatten())
        return torch.cat(found)

    def fit(self, wanted: Sequence[float], cutoffs: Sequence[float]) -> tuple[float, float]:
        """Return the lengths along both directions that meet the shares best."""

        def cost(lengths: tuple[float, float]) -> float:
            difference = max_share_difference(wanted, shares_above(self.scores(*lengths), cutoffs))
            return max(0.0, difference - _TOLERANCE) + _COST * (abs(lengths[0]) + lengths[1])

        best = min(((raised, shrunk) for raised in _RAISES for shrunk in _SHRINKS), key=cost)
        step = 0.1
        for _ in range(_FINER):
            step /= 3
            around = [(best[0] + i * step, max(0.0, best[1] + j * step)) for i in range(-3, 4) for j in range(-3, 4)]
            best = min([best, *around], key=cost)
        return best
