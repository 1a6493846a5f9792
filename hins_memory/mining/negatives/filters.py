"""Filters against false negatives: memories that may be relevant to the query must not be used as negatives."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hins_memory.mining.owner.owner import OwnerMemories
from hins_memory.mining.owner.text import words
from hins_memory.mining.positives.evidence import QueryEvidence
from hins_memory.mining.settings import MineSettings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["RESTATED_WORDS", "Pair", "Pairs", "allowed_negatives", "guard_limit", "restating"]

#: A memory of the same speaker that is near to the positive and has this share of its rare words, of the shorter one,
#: is taken for the same fact restated, say later in other words.
RESTATED_WORDS = 0.7
# Below this cosine, equal words mean something else.
_RESTATED_COSINE = 0.65


@dataclass(frozen=True, slots=True)
class Pair:
    """A query with one of its positives: the positive's row, and what the log says about the query."""

    row: int
    evidence: QueryEvidence


@dataclass(frozen=True, slots=True)
class Pairs:
    """Some pairs of an owner, and their cosines with all of its rows.

    `scores` are the queries', `similarity` the positives', each of shape (len(pairs), n).
    """

    pairs: list[Pair]
    scores: NDArray[np.float32]
    similarity: NDArray[np.float32]


def guard_limit(positive_score: float, guard: float | None) -> float:
    """Return the limit that a negative's cosine with the query must be below (NV-Retriever's positive-aware guard).

    For a positive score of zero or less the limit still lies below it; without a guard there is none.
    """
    if guard is None:
        return float("inf")
    return positive_score - (1.0 - guard) * abs(positive_score)


def allowed_negatives(owner: OwnerMemories, block: Pairs, settings: MineSettings) -> NDArray[np.bool_]:
    """Return which of the owner's memories may be negatives of each pair.

    Args:
        owner: the owner's memories.
        block: the pairs.
        settings: the miner's settings.

    Returns:
        A mask of shape (pairs, n). What was rejected is allowed whatever its score.
    """
    import numpy as np

    rows = np.asarray([pair.row for pair in block.pairs], dtype=np.int64)
    limits = [
        float("inf")
        if pair.evidence.answered and settings.max_plausible < 1
        else guard_limit(float(block.scores[place, pair.row]), settings.guard)
        for place, pair in enumerate(block.pairs)
    ]
    allowed = block.scores < np.asarray(limits)[:, None]
    for place, pair in enumerate(block.pairs):
        _mark(allowed[place], pair.evidence.plausible, False)
        _mark(allowed[place], pair.evidence.rejected, True)
    # A memory that is this similar to the positive states the same fact.
    allowed &= block.similarity < settings.duplicate_similarity
    allowed &= owner.key_codes != owner.key_codes[rows][:, None]
    for place, pair in enumerate(block.pairs):
        for other in pair.evidence.positives:
            if other != pair.row:
                near = owner.vectors @ owner.vectors[other] >= settings.duplicate_similarity
                allowed[place] &= ~near & (owner.key_codes != owner.key_codes[other])
        _mark(allowed[place], pair.evidence.positives, False)
    same = owner.speaker_codes == owner.speaker_codes[rows][:, None]
    near = allowed & same & (block.similarity >= _RESTATED_COSINE)
    for place in np.flatnonzero(near.any(axis=1)).tolist():
        again = np.flatnonzero(near[place]).tolist()
        _mark(allowed[place], restating(owner, block.pairs[place].row, again), False)
    return np.asarray(allowed, dtype=np.bool_)


def _mark(mask: NDArray[np.bool_], rows: Iterable[int], value: bool) -> None:
    if places := list(rows):
        mask[places] = value


def restating(owner: OwnerMemories, positive: int, near: Sequence[int]) -> list[int]:
    """Return which of some memories state the positive's fact again in other words, e.g. at a later time.

    Args:
        owner: the owner's memories.
        positive: the positive's row.
        near: rows near to it in meaning, of the same speaker.
    """
    if not near:
        return []
    # The speaker's name, which most of the speaker's memories begin with, is not a fact.
    name = set(words(owner.speakers[positive]))
    fact = set(words(owner.texts[positive])) - name
    weight = owner.lexicon.weight
    found = []
    for row in near:
        other = set(words(owner.texts[row])) - name
        least = min(weight(fact), weight(other))
        if least > 0 and weight(fact & other) >= RESTATED_WORDS * least:
            found.append(row)
    return found
