"""Answer attribution: which memory an answer comes from, and with what probability.

Two steps. *Support* adds up the signals for a memory: rare words of the answer, rare words of the question, cosine
with "question answer" and with the answer, the speaker that the question names, the date that the answer names.
A small logistic model then turns support into a probability. Its features compare with *all* memories of the owner:
an answer that another memory supports better did not come from this one, whether the search returned it or not. Where
the best supported memory was not returned, the search should have, if a second such model is sure enough.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hins_memory.mining.owner.owner import OwnerMemories
from hins_memory.mining.owner.text import normalized, words
from hins_memory.mining.positives.dates import closeness, dates_in

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "MODEL",
    "SIGNALS",
    "AttributionModel",
    "Question",
    "attribute",
    "choose_sources",
    "features",
    "is_refusal",
    "signals",
    "supports",
    "unretrieved_source",
]

#: The signals that a memory is the source of an answer, in the order of `signals`.
SIGNALS = (
    "answer words",
    "answer rarity",
    "question words",
    "joint cosine",
    "answer cosine",
    "speaker",
    "date",
)
# The best source of an answer is kept from the settings' confidence on. A further one needs this probability: when
# one memory explains the answer, a second one has little left to explain.
_FURTHER_CONFIDENCE = 0.9

_ROLES = frozenset({"user", "assistant", "system", "agent", "bot", "ai", "human", "tool"})
_REFUSAL = re.compile(
    r"\b(?:(?:i|we) (?:do not|don['’]?t|did not|didn['’]?t|cannot|can['’]?t|could not|couldn['’]?t) "
    r"(?:really |actually |seem to |currently )?(?:know|remember|recall|find|have (?:any |that |enough |the |this )*"
    r"(?:information|info|record|memory|memories|details?|data))"
    r"|no (?:relevant |such )?(?:information|info|record|memory|memories|data|mention)\b"
    r"|not (?:mentioned|specified|stated|available|known|provided|enough information|sure)\b"
    r"|(?:is|are|was|were)n['’]t (?:mentioned|specified|stated|available|known|provided)"
    r"|unknown|unanswerable|^n/?a$|^none$)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class AttributionModel:
    """The numbers of answer attribution.

    Args:
        support: what a unit of each of `SIGNALS` adds to a memory's support.
        intercept: of the logistic model.
        weights: of the logistic model, in the order of `features`.
        unretrieved_intercept: of the logistic model for the best supported memory, where the search did not return it.
        unretrieved_weights: of that model: of support and of margin.
    """

    support: tuple[float, ...]
    intercept: float
    weights: tuple[float, ...]
    unretrieved_intercept: float
    unretrieved_weights: tuple[float, float]


#: Fitted by ``benchmarks/attribution.py --fit`` on the packaged sample conversations, and on nothing else. For half
#: of its questions the evidence had been removed from the memories: an answer need not come from one.
MODEL = AttributionModel(
    support=(1.04, 0.59, 0.74, 0.60, 0.16, 0.55, 0.52),
    intercept=-8.06,
    weights=(2.98, 1.39, 1.91, 0.31),
    unretrieved_intercept=-7.38,
    unretrieved_weights=(3.08, 0.67),
)


@dataclass(frozen=True, slots=True)
class Question:
    """A question, its answer, and their vectors, shape (dim,), unit length."""

    text: str
    answer: str
    joint_vector: NDArray[np.float32]
    answer_vector: NDArray[np.float32]


def is_refusal(answer: str) -> bool:
    """Return whether an answer says that nothing was found, so that it comes from no memory."""
    text = normalized(answer)
    # A long answer that also says what it does not know is still an answer.
    return not text or (len(text) < 160 and _REFUSAL.search(text) is not None)


def _speaker_match(owner: OwnerMemories, question: str) -> NDArray[np.float64]:
    """Return 1 for memories of the one speaker that the question names, -1 for those of speakers it does not name."""
    import numpy as np

    match = np.zeros(len(owner.texts))
    text = normalized(question)
    named = [
        code
        for name, code in owner.names.items()
        # An owner may have thousands of speakers, and compiling a pattern takes longer than looking for the letters.
        if name not in _ROLES and name in text and re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text)
    ]
    if named:
        match[(owner.speaker_codes >= 0) & ~np.isin(owner.speaker_codes, named)] = -1.0
    if len(named) == 1:
        match[owner.speaker_codes == named[0]] = 1.0
    return match


def signals(owner: OwnerMemories, question: Question) -> NDArray[np.float64]:
    """Return each of `SIGNALS` for each memory of the owner; shape (n, 7), about -1 to 2 each."""
    import numpy as np

    question_words = set(words(question.text))
    answer_words = set(words(question.answer))
    # Words of the question are not evidence of the answer's source, unless the answer has no other words.
    new_words = (answer_words - question_words) or answer_words
    # A speaker's name is scored separately: it is in most memories of that speaker.
    question_words -= owner.name_stems
    lexicon = owner.lexicon
    dates = dates_in(question.answer)
    near = [closeness(dates, memory.time) for memory in owner.memories] if dates else [0.0] * len(owner.texts)
    columns = (
        lexicon.coverage(new_words),
        lexicon.overlap(new_words) / lexicon.rarity(""),
        lexicon.coverage(question_words),
        owner.vectors @ question.joint_vector,
        owner.vectors @ question.answer_vector,
        _speaker_match(owner, question.text),
        np.asarray(near),
    )
    return np.stack([np.asarray(column, dtype=np.float64) for column in columns], axis=1)


def features(support: NDArray[np.float64], ranked: Sequence[int]) -> NDArray[np.float64]:
    """Return the features of the logistic model for each memory of an owner.

    Args:
        support: the support of each memory, shape (n,), n >= 1.
        ranked: the rows that the search returned, best first.

    Returns:
        Shape (n, 4): support; 1 / rank by support among all; 1 / rank in the search, 0 if not returned; margin, that
        is support minus the best support among the *other* memories.
    """
    import numpy as np

    order = np.argsort(-support, kind="stable")
    rank = np.empty(len(order))
    rank[order] = np.arange(1, len(order) + 1)
    returned = np.zeros(len(order))
    returned[list(ranked)] = 1.0 / np.arange(1, len(ranked) + 1)
    margin = support - support[order[0]]
    if len(order) > 1:
        margin[order[0]] = support[order[0]] - support[order[1]]
    return np.stack([support, 1.0 / rank, returned, margin], axis=1)


def supports(owner: OwnerMemories, question: Question, model: AttributionModel = MODEL) -> NDArray[np.float64]:
    """Return the support of each memory of the owner as the source of the answer, shape (n,)."""
    import numpy as np

    return np.asarray(signals(owner, question) @ np.asarray(model.support))


def _logistic(logits: NDArray[np.float64] | float) -> NDArray[np.float64]:
    import numpy as np

    return np.asarray(1.0 / (1.0 + np.exp(-logits)))


def attribute(
    support: NDArray[np.float64], ranked: Sequence[int], model: AttributionModel = MODEL
) -> NDArray[np.float64]:
    """Return the probability, shape (n,), that the answer comes from each memory of the owner.

    It is meant for the rows in `ranked`, which are distinct; for other rows it is how plausible they are as a source.

    Args:
        support: of each memory, shape (n,), n >= 1: `supports`.
        ranked: the rows that the search returned, best first.
        model: the numbers.
    """
    import numpy as np

    return _logistic(features(support, ranked) @ np.asarray(model.weights) + model.intercept)


def unretrieved_source(
    support: NDArray[np.float64], ranked: Sequence[int], model: AttributionModel = MODEL
) -> tuple[int, float] | None:
    """Return the best supported memory, if the search did not return it, and the probability that it is the source.

    Args:
        support: of each memory, shape (n,), n >= 1: `supports`.
        ranked: the rows that the search returned, best first.
        model: the numbers.
    """
    import numpy as np

    row = int(np.argmax(support))
    if row in ranked:
        return None
    strength, *_, margin = features(support, ranked)[row].tolist()
    by_support, by_margin = model.unretrieved_weights
    return row, float(_logistic(model.unretrieved_intercept + by_support * strength + by_margin * margin))


def choose_sources(
    confidence: NDArray[np.float64] | Mapping[int, float], ranked: Sequence[int], min_confidence: float, most: int
) -> list[int]:
    """Return the rows among `ranked` that count as sources of an answer, most probable first, at most `most`."""
    chosen: list[int] = []
    for row in sorted(ranked, key=lambda ranked_row: -confidence[ranked_row])[:most]:
        if confidence[row] < (max(min_confidence, _FURTHER_CONFIDENCE) if chosen else min_confidence):
            break
        chosen.append(row)
    return chosen
