"""Settings of the miner, validated once at the edge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hins_memory.errors import ConfigError
from hins_memory.types import Ratio

__all__ = ["TOP_K", "MineSettings"]

#: This many memories of a search count, for attribution and for the empirical ratio.
TOP_K = 20
_MIN_BUDGET = 16 * 2**20


@dataclass(frozen=True, slots=True)
class MineSettings:
    """What the miner keeps and how it samples.

    Args:
        negatives: how many negatives a query gets, at least 1.
        ratio: the share of each tier, or ``"empirical"``: counted from the log, per owner (ratio.py).
        guard: a negative's cosine with the query stays under this share of the positive's (NV-Retriever,
            arXiv 2407.15831); 1 only asks that it is not above the positive, None asks nothing. For queries whose
            answer tells what it may have come from, `max_plausible` does this better: what is ranked above the
            positive and is not where the answer came from is what the encoder has to unlearn.
        min_confidence: a (query, memory) pair believed less than this, 0 to 1, is not used as a positive.
        unretrieved: whether the memory that explains an answer best is a positive also where the search did not
            return it.
        max_plausible: a memory that the answer points to with more than this confidence, 0 to 1, is not used as a
            negative either: it may be the same fact restated. 1 leaves that to the guard.
        duplicate_similarity: cosine with the positive from which a text counts as the same fact restated.
        share_scopes: whether texts of one owner may be negatives in another owner's examples.
        max_owner_share: an owner's largest share of the examples, over 0 to 1. It is held when there are more owners
            than 1 / share; fewer could only be held to it by an equal split.
        memory_budget: about how many bytes the miner may hold beside the log of the owner at hand, at least 16 MiB;
            it does not grow with the number of owners. An owner's vectors that would take over a quarter are a
            float16 file.
        seed: of everything that is sampled.

    Raises:
        ConfigError: a value is out of its range.
    """

    negatives: int = 3
    ratio: Ratio | Literal["empirical"] = "empirical"
    guard: float | None = 0.95
    min_confidence: float = 0.5
    unretrieved: bool = True
    max_plausible: float = 0.1
    duplicate_similarity: float = 0.9
    share_scopes: bool = False
    max_owner_share: float = 0.5
    memory_budget: int = 2 * 2**30
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.ratio, Ratio) and self.ratio != "empirical":
            raise ConfigError(f"The ratio {self.ratio!r} is not valid.", "Use 'empirical' or a Ratio of three shares.")
        if self.negatives < 1:
            raise ConfigError(f"negatives is {self.negatives}.", "Use at least 1.")
        self._check_shares()
        if self.memory_budget < _MIN_BUDGET:
            raise ConfigError(f"memory_budget is {self.memory_budget} bytes.", "Use at least 16 MiB (16777216).")

    def _check_shares(self) -> None:
        for name in ("guard", "max_owner_share", "duplicate_similarity"):
            value = getattr(self, name)
            if value is None and name == "guard":
                continue
            if value is None or not 0 < value <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}.", "Use a value over 0 and up to 1.")
        for name in ("min_confidence", "max_plausible"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}.", "Use a value from 0 to 1.")
