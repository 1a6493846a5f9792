"""How much keywords are to count beside an encoder's cosines, fitted on searches whose outcome is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from hins_memory.evaluation.as_served import score_as_served
from hins_memory.evaluation.evaluate import evaluate_encoder

if TYPE_CHECKING:
    from hins_memory.encoders.encoder import Encoder
    from hins_memory.evaluation.as_served import SearchReplay
    from hins_memory.evaluation.evaluate import EvalSet

__all__ = ["KEYWORD_WEIGHTS", "MIN_WEIGHT_QUERIES", "best_weight", "fit_keyword_weight"]

#: The weights that are tried: what the best result of a search by keyword adds to its cosine.
KEYWORD_WEIGHTS = (0.0, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7)
#: With fewer queries no weight is fitted. Over draws of this many of LoCoMo's questions, the fitted weight was within
#: 1.4 points of the best one on the other questions, on average (benchmarks/fusion.py has what all of them give).
MIN_WEIGHT_QUERIES = 20
# As for the gate.
_K = 10


def fit_keyword_weight(encoder: Encoder, replay: SearchReplay, sets: Sequence[EvalSet]) -> float | None:
    """Return the weight with which the agent's own search ranks best, by nDCG@10.

    Args:
        encoder: the encoder whose cosines are used.
        replay: the search; its keyword scores are those of the live store.
        sets: queries with their relevant documents. Best not those that the encoder was trained on, because its
            cosines are better there than elsewhere, and not those that it will be judged by.

    Returns:
        One of `KEYWORD_WEIGHTS`; None where the search takes no weight, or there are too few queries.
    """
    if not replay.takes_weight or sum(len(one.queries) for one in sets) < MIN_WEIGHT_QUERIES:
        return None
    found = evaluate_encoder(encoder, sets, ks=(_K,), candidates=replay.candidates)
    scores = score_as_served(replay, sets, [found] * len(KEYWORD_WEIGHTS), KEYWORD_WEIGHTS, ks=(_K,))
    return best_weight([float(one.ndcg[_K].mean()) for one in scores])


def best_weight(means: Sequence[float]) -> float:
    """Return the weight whose mean score, averaged with those of its neighbours, is best.

    A few dozen queries give a curve with chance peaks, and the true one is flat about its best place.

    Args:
        means: the mean score of each of `KEYWORD_WEIGHTS`.
    """
    smooth = np.convolve(np.pad(np.asarray(means), 1, mode="edge"), [0.25, 0.5, 0.25], "valid")
    return KEYWORD_WEIGHTS[int(smooth.argmax())]
