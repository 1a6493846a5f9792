"""What the log says about one query, and about one retrieval; the parts of the miner share these classes."""

from __future__ import annotations

from dataclasses import dataclass, field

from hins_memory.types import Positive, Retrieval

__all__ = ["QueryEvidence", "ResolvedRetrieval"]


@dataclass(slots=True)
class QueryEvidence:
    """All that the log says about one query of an owner.

    `positives` maps rows to positives; `rejected` are rows that feedback or a follow-up says are not relevant;
    `plausible` are the rows that an answer to the query may have come from, even with a low probability, and `answered`
    says whether there was such an answer.
    """

    query: str
    positives: dict[int, Positive] = field(default_factory=dict)
    rejected: set[int] = field(default_factory=set)
    plausible: set[int] = field(default_factory=set)
    answered: bool = False


@dataclass(frozen=True, slots=True)
class ResolvedRetrieval:
    """A retrieval with the rows of those results that still exist, best first, and the answers given after it.

    `key` is the normalised query: queries with equal keys count as one.
    """

    retrieval: Retrieval
    key: str
    rows: list[int]
    answers: tuple[str, ...]
