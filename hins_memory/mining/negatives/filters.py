"""Filters against false negatives: memories that may be relevant to the query must not be used as negatives."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hins_memory.mining.owner.owner import OwnerMemories
from hins_memory.mining.owner.text import words, words_of
from hins_memory.mining.owner.vectors import rows_of
from hins_memory.mining.positives.evidence import QueryEvidence
from hins_memory.mining.settings import MineSettings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["RESTATED_WORDS", "Pair", "Pairs", "allowed_negatives", "guard_limit", "is_guarded", "restating"]

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
    """Some pairs of an owner, and their cosines with all of its rows, or with k rows for each pair.

    `scores` are the queries', `similarity` the positives', each of shape (len(pairs), k). `rows`, of the same shape,
    says which rows those are, each once and the positive's among them, -1 for none; None means all, in order.
    `vectors` are theirs, of shape (len(pairs), k, dim), or (n, dim) where they are all.
    """

    pairs: Sequence[Pair]
    scores: NDArray[np.float32]
    similarity: NDArray[np.float32]
    vectors: NDArray[np.float32]
    rows: NDArray[np.int64] | None = None

    def columns(self, place: int, rows: Collection[int]) -> list[int] | NDArray[np.bool_]:
        """Return the columns of some of the owner's rows for a pair, as an index."""
        import numpy as np

        return list(rows) if self.rows is None else np.isin(self.rows[place], list(rows))

    def row_at(self, place: int, column: int) -> int:
        """Return which of the owner's rows a column of a pair is."""
        return column if self.rows is None else int(self.rows[place, column])

    def of(self, codes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the codes, one for each of the owner's rows, of the rows here; shape (k,) or (len(pairs), k)."""
        return codes if self.rows is None else codes[self.rows]


def guard_limit(positive_score: float, guard: float | None) -> float:
    """Return the limit that a negative's cosine with the query must be below (NV-Retriever's positive-aware guard).

    For a positive score of zero or less the limit still lies below it; without a guard there is none.
    """
    if guard is None:
        return float("inf")
    return positive_score - (1.0 - guard) * abs(positive_score)


def is_guarded(evidence: QueryEvidence, settings: MineSettings) -> bool:
    """Say whether the guard holds for a query: it does where no answer tells what it may have come from."""
    return settings.guard is not None and not (evidence.answered and settings.max_plausible < 1)


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
    own = rows if block.rows is None else (block.rows == rows[:, None]).argmax(axis=1)
    limits = [
        guard_limit(score, settings.guard) if is_guarded(pair.evidence, settings) else float("inf")
        for pair, score in zip(block.pairs, block.scores[np.arange(len(rows)), own].tolist(), strict=True)
    ]
    allowed = block.scores < np.asarray(limits)[:, None]
    for place, pair in enumerate(block.pairs):
        _mark(allowed, block, place, pair.evidence.plausible, False)
        _mark(allowed, block, place, pair.evidence.rejected, True)
    # A memory that is this similar to the positive states the same fact.
    allowed &= block.similarity < settings.duplicate_similarity
    keys = block.of(owner.key_codes)
    allowed &= keys != owner.key_codes[rows][:, None]
    for place, pair in enumerate(block.pairs):
        if len(pair.evidence.positives) == 1:
            # It has its own text.
            continue
        for other in pair.evidence.positives:
            if other != pair.row:
                vectors, texts = (block.vectors, keys) if block.rows is None else (block.vectors[place], keys[place])
                near = vectors @ rows_of(owner.vectors, np.asarray([other]))[0] >= settings.duplicate_similarity
                allowed[place] &= ~near & (texts != owner.key_codes[other])
        _mark(allowed, block, place, pair.evidence.positives, False)
    if block.rows is not None:
        allowed &= block.rows >= 0
    same = block.of(owner.speaker_codes) == owner.speaker_codes[rows][:, None]
    near = allowed & same & (block.similarity >= _RESTATED_COSINE)
    for place in np.flatnonzero(near.any(axis=1)).tolist():
        again = [block.row_at(place, column) for column in np.flatnonzero(near[place]).tolist()]
        _mark(allowed, block, place, restating(owner, block.pairs[place].row, again), False)
    return np.asarray(allowed, dtype=np.bool_)


def _mark(allowed: NDArray[np.bool_], block: Pairs, place: int, rows: Collection[int], value: bool) -> None:
    if rows:
        allowed[place, block.columns(place, rows)] = value


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
    fact = set(words_of(owner.keys[positive])) - name
    weight = owner.lexicon.weight
    found = []
    for row in near:
        other = set(words_of(owner.keys[row])) - name
        least = min(weight(fact), weight(other))
        if least > 0 and weight(fact & other) >= RESTATED_WORDS * least:
            found.append(row)
    return found
