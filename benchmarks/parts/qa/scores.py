r"""Scores of LoCoMo answers: F1 and BLEU-1 as three published evaluations compute them, and abstention.

* *official*: the LoCoMo authors' (Maharana et al. 2024). Lower case, no punctuation, no a/an/the/and, Porter stems,
  tokens as a multiset. Category 1 is split on commas: the mean over gold parts of the best match. Category 3: the gold
  answer ends at its semicolon. They publish F1 only.
* *mem0*: Mem0's (Chhikara et al. 2025, from A-Mem). F1 over sets of tokens, of which only . , ! ? are taken off; BLEU-1
  is nltk's, over ``word_tokenize`` of the lower-cased texts, smoothed by method 1. Category 5 is skipped.
* *memoryos*: MemoryOS's (Kang et al. 2025). F1 over sets of ``\b\w+\b``, lower-cased. They publish F1 only.

Where only F1 is published, BLEU-1 is nltk's over the variant's own tokens, in the order of the text. Category 5 is
scored apart, as the share of questions that the reader declines. All scores are 0 to 1.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from statistics import fmean
from typing import Any

from hins_memory.errors import ConfigError

__all__ = ["SCORES", "VARIANTS", "abstained", "score_answer", "sentence_splitter"]

VARIANTS = ("official", "mem0", "memoryos")
#: The names of the scores of an answer, e.g. ``official_f1``.
SCORES = tuple(f"{variant}_{score}" for variant in VARIANTS for score in ("f1", "bleu1"))

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_FILLERS = re.compile(r"\b(a|an|the|and)\b")
_MEM0_SEPARATORS = str.maketrans(".,!?", "    ")
_WORDS = re.compile(r"\b\w+\b")
# What a period does not end a sentence after, where nltk's own list is not installed.
_ABBREVIATIONS = (
    "mr mrs ms dr prof st jr sr rev gen col capt lt sgt hon mt ft ave blvd rd dept univ inc ltd co corp no vs etc e.g "
    "i.e a.m p.m u.s u.k ph.d b.a m.a d.c jan feb mar apr jun jul aug sep sept oct nov dec"
)


def score_answer(prediction: str, gold: str, category: int) -> dict[str, float]:
    """Return every score of `SCORES` of an answer to a question of category 1 to 4."""
    official_gold = gold.split(";")[0].strip() if category == 3 else gold
    mem0_prediction, mem0_gold = prediction.strip(), gold.strip()
    words = (_words(prediction), _words(gold))
    return {
        "official_f1": _official_parts(prediction, gold) if category == 1 else _official(prediction, official_gold),
        "official_bleu1": _bleu1(_stems(prediction), _stems(official_gold)),
        "mem0_f1": _set_f1(_mem0_tokens(mem0_prediction), _mem0_tokens(mem0_gold)),
        "mem0_bleu1": _bleu1(_nltk_tokens(prediction), _nltk_tokens(gold)),
        "memoryos_f1": _set_f1(*words),
        "memoryos_bleu1": _bleu1(*words),
    }


def abstained(prediction: str) -> bool:
    """Return whether an answer declines the question, by the official rule for category 5."""
    text = prediction.lower()
    return "no information available" in text or "not mentioned" in text


def _official_parts(prediction: str, gold: str) -> float:
    predictions = [part.strip() for part in prediction.split(",")]
    return fmean(max(_official(one, part.strip()) for one in predictions) for part in gold.split(","))


def _official(prediction: str, gold: str) -> float:
    found, expected = Counter(_stems(prediction)), Counter(_stems(gold))
    return _f1((found & expected).total(), found.total(), expected.total())


def _set_f1(prediction: Sequence[str], gold: Sequence[str]) -> float:
    found, expected = set(prediction), set(gold)
    return _f1(len(found & expected), len(found), len(expected))


def _f1(common: int, found: int, expected: int) -> float:
    return 2 * common / (found + expected) if common else 0.0


def _stems(text: str) -> list[str]:
    plain = text.lower().translate(_PUNCTUATION)
    stemmer = _stemmer()
    return [stemmer.stem(word) for word in _FILLERS.sub(" ", plain).split()]


def _mem0_tokens(text: str) -> list[str]:
    return text.lower().translate(_MEM0_SEPARATORS).split()


def _words(text: str) -> list[str]:
    return _WORDS.findall(text.lower())


def _nltk_tokens(text: str) -> list[str]:
    """What ``nltk.word_tokenize`` gives of the lower-cased text: sentences first, then words."""
    _, split, words = _nltk()
    return [token for sentence in split(text.lower()) for token in words(sentence)]


def sentence_splitter() -> str:
    """Return what splits sentences for *mem0*'s BLEU-1: ``punkt``, or ``abbreviations`` without nltk's data.

    They differ only after abbreviations that are not in the short list here, and after some numbers.
    """
    return str(_nltk()[0])


@lru_cache(maxsize=1)
def _nltk() -> tuple[str, Any, Any]:
    _require_nltk()
    from nltk.tokenize import NLTKWordTokenizer, sent_tokenize
    from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer

    words = NLTKWordTokenizer().tokenize
    try:
        sent_tokenize("One. Two.")
    except LookupError:  # the data is a download of its own
        parameters = PunktParameters()
        parameters.abbrev_types = set(_ABBREVIATIONS.split())
        return "abbreviations", PunktSentenceTokenizer(parameters).tokenize, words
    return "punkt", sent_tokenize, words


@lru_cache(maxsize=1)
def _stemmer() -> Any:
    _require_nltk()
    from nltk.stem import PorterStemmer

    return PorterStemmer()


def _require_nltk() -> None:
    try:
        import nltk  # noqa: F401
    except ImportError as error:
        raise ConfigError("The scores of answers need nltk.", "Install it: pip install nltk") from error


def _bleu1(prediction: Sequence[str], gold: Sequence[str]) -> float:
    _require_nltk()
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    if not prediction or not gold:
        return 0.0
    smooth = SmoothingFunction().method1
    return float(sentence_bleu([gold], prediction, weights=(1, 0, 0, 0), smoothing_function=smooth))
