"""Settings of the miner, validated once at the edge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hins_memory.errors import ConfigError
from hins_memory.types import Ratio

__all__ = ["MineSettings"]


@dataclass(frozen=True, slots=True)
class MineSettings:
    """What the miner keeps and how it samples.

    Args:
        negatives: how many negatives a query gets, at least 1.
        ratio: the share of each tier, or ``"empirical"``: counted from the log, per owner (ratio.py).
        guard: a negative's cosine with the query stays under this share of the positive's (NV-Retriever,
            arXiv 2407.15831); 1 only asks that it is not above the positive, None asks nothing.
        min_confidence: a (query, memory) pair believed less than this, 0 to 1, is not used as a positive.
        max_plausible: a memory that the answer points to with more than this confidence, 0 to 1, is not used as a
            negative either: it may be the same fact restated.
        top_k: how many memories of a search count, for attribution and for the empirical ratio.
        max_positives: at most this many memories of one retrieval become positives, best first.
        near_pool: negatives of a tier are sampled from this many nearest ones that pass the filters.
        duplicate_similarity: cosine with the positive from which a text counts as the same fact restated.
        share_scopes: whether texts of one owner may be negatives in another owner's examples.
        max_owner_share: an owner's largest share of the examples, over 0 to 1. It is held when there are more owners
            than 1 / share; fewer could only be held to it by an equal split.
        provenance: whether (source turn, extracted memory) pairs are added.
        max_chars: longer texts are cut to this many characters in examples; encoders read far less.
        seed: of everything that is sampled.

    Raises:
        ConfigError: a value is out of its range.
    """

    negatives: int = 3
    ratio: Ratio | Literal["empirical"] = "empirical"
    guard: float | None = 0.95
    min_confidence: float = 0.5
    max_plausible: float = 0.1
    top_k: int = 20
    max_positives: int = 3
    near_pool: int = 8
    duplicate_similarity: float = 0.9
    share_scopes: bool = False
    max_owner_share: float = 0.5
    provenance: bool = False
    max_chars: int = 8000
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.ratio, Ratio) and self.ratio != "empirical":
            raise ConfigError(f"The ratio {self.ratio!r} is not valid.", "Use 'empirical' or a Ratio of three shares.")
        for name in ("negatives", "top_k", "max_positives", "near_pool", "max_chars"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}.", "Use at least 1.")
        for name in ("guard", "max_owner_share", "duplicate_similarity"):
            value = getattr(self, name)
            if not (value is None and name == "guard") and not (value is not None and 0 < value <= 1):
                raise ConfigError(f"{name} is {getattr(self, name)}.", "Use a value over 0 and up to 1.")
        for name in ("min_confidence", "max_plausible"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}.", "Use a value from 0 to 1.")
