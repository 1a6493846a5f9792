"""The keyword scores that Mem0's hybrid search adds to cosines, for a whole conversation at once.

Texts and questions are lemmatised by Mem0, made sparse vectors by fastembed's BM25, and weighed by how rare a word is,
as Qdrant does for a collection that holds this conversation alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["POOL", "KeywordScores", "keyword_scores"]

#: How many results of a search by vector or by keyword Mem0 looks at, for the 20 that it returns by default.
POOL = 80


@dataclass(frozen=True, slots=True)
class KeywordScores:
    """Scores of every text for every question, both of shape (questions, texts); 0 where no word is shared.

    Attributes:
        bm25: the sum over common words, 0 or more.
        squashed: what Mem0 adds to the cosine: `bm25` through a sigmoid, 0 to 1, of the best texts only.
        least: of shape (questions,), what a BM25 score of 0 would add: less cannot be reached by any score.
    """

    bm25: NDArray[np.float64]
    squashed: NDArray[np.float64]
    least: NDArray[np.float64]


def keyword_scores(texts: Sequence[str], questions: Sequence[str]) -> KeywordScores:
    """Return the scores of texts for questions; `enable_hybrid` has to be called before."""
    import fastembed
    from mem0.utils.lemmatization import lemmatize_for_bm25
    from mem0.utils.scoring import get_bm25_params, normalize_bm25

    encoder = fastembed.SparseTextEmbedding(model_name="Qdrant/bm25")
    stored = _vectors(encoder, [lemmatize_for_bm25(text) for text in texts])
    lemmas = [lemmatize_for_bm25(question) for question in questions]
    counts = Counter(word for vector in stored for word in vector)
    holders: dict[int, list[tuple[int, float]]] = {}
    for column, vector in enumerate(stored):
        for word, value in vector.items():
            holders.setdefault(word, []).append((column, value))
    bm25 = np.zeros((len(questions), len(texts)))
    squashed, least = np.zeros_like(bm25), np.zeros(len(questions))
    for row, vector in enumerate(_vectors(encoder, lemmas)):
        for word in vector.keys() & holders.keys():
            # Qdrant's weight of a word, of how many of the texts have it.
            weight = np.log(1 + (len(texts) - counts[word] + 0.5) / (counts[word] + 0.5))
            for column, value in holders[word]:
                bm25[row, column] += weight * vector[word] * value
        middle, steepness = get_bm25_params(questions[row], lemmatized=lemmas[row])
        least[row] = normalize_bm25(0.0, middle, steepness)
        for column in np.argsort(-bm25[row], kind="stable")[:POOL]:
            if bm25[row, column] > 0:
                squashed[row, column] = normalize_bm25(float(bm25[row, column]), middle, steepness)
    return KeywordScores(bm25, squashed, least)


def _vectors(encoder: Any, texts: Sequence[str]) -> list[dict[int, float]]:
    """Return the sparse vectors of texts, word number -> value."""
    return [dict(zip(one.indices.tolist(), one.values.tolist(), strict=True)) for one in encoder.embed(list(texts))]
