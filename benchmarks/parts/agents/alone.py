"""Rankings without an agent: an encoder's cosines, or BM25, over a conversation's own documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from hins_memory.errors import ConfigError
from hins_memory.evaluation.evaluate import TIE_DECIMALS
from parts.datasets.locomo import Conversation, Document, Memories, documents

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hins_memory.encoders.encoder import Encoder

__all__ = ["BM25", "TOP_K", "AlonePlayer", "bm25_version", "rank_alone", "rank_bm25"]

#: How many documents a ranking names: as many as Mem0's search finds by default.
TOP_K = 20
#: What stands for BM25 in the place of an encoder.
BM25 = "bm25"


class AlonePlayer:
    """Ranks the documents of a conversation for its questions, with nothing but an encoder, or BM25.

    Args:
        model: the encoder; None means BM25.
        memories: whether turns or facts are ranked.
    """

    def __init__(self, model: Encoder | None, memories: Memories) -> None:
        self._model = model
        self._memories = memories

    def play(self, conversation: Conversation) -> list[list[str]]:
        """Return, for each question, the ids of the best documents, best first."""
        stored = documents(conversation, self._memories)
        questions = [question.text for question in conversation.questions]
        if self._model is not None:
            return rank_alone(self._model, stored, questions)
        return rank_bm25({one.id: one.text for one in stored}, questions)


def rank_alone(encoder: Encoder, stored: Sequence[Document], questions: Sequence[str]) -> list[list[str]]:
    """Return the ids of the documents with the best cosines for each question, as an evaluation ranks them."""
    if not stored:
        return [[] for _ in questions]
    rows = sorted(stored, key=lambda one: one.id)
    vectors = encoder.encode([one.text for one in rows], role="document")
    # (questions, documents)
    cosines = np.round(encoder.encode(list(questions), role="query") @ vectors.T, TIE_DECIMALS)
    return _best(cosines, [one.id for one in rows])


def rank_bm25(stored: Mapping[str, str], questions: Sequence[str]) -> list[list[str]]:
    """Return the ids of the texts with the best scores for each question; `stored` is id -> text."""
    names = sorted(stored)
    return _best(_bm25([stored[name] for name in names], questions), names)


def bm25_version() -> str:
    """Return what ranks in the place of an encoder.

    Raises:
        ConfigError: a package is missing.
    """
    try:
        import bm25s
        import nltk
    except ImportError as error:
        raise ConfigError(
            f"{BM25} needs the package {error.name}.", 'Install it: pip install "hins-memory[bench]"'
        ) from error
    return f"bm25s {bm25s.__version__}, nltk {nltk.__version__}"


def _bm25(texts: Sequence[str], questions: Sequence[str]) -> NDArray[np.float32]:
    """Return the scores of texts, shape (questions, texts), with the settings of MTEB's BM25.

    Lucene's formula, k1 1.5, b 0.75, English stop words and the Snowball stemmer.
    """
    import bm25s
    from nltk.stem.snowball import SnowballStemmer

    stem = SnowballStemmer("english").stem
    split = {"stopwords": "en", "stemmer": lambda words: [stem(word) for word in words], "show_progress": False}
    index = bm25s.BM25()
    index.index(bm25s.tokenize(list(texts), **split), show_progress=False)
    scores = np.zeros((len(questions), len(texts)), dtype=np.float32)
    for row, words in enumerate(bm25s.tokenize(list(questions), return_ids=False, **split)):
        # A question of stop words alone says nothing about any text.
        if words:
            scores[row] = index.get_scores(words)
    return scores


def _best(scores: NDArray[np.floating], names: Sequence[str]) -> list[list[str]]:
    best = np.argsort(-scores, axis=1, kind="stable")[:, :TOP_K]
    return [[names[column] for column in row] for row in best]
