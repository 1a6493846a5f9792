"""What the miner did: counts, ratio, what was skipped and why, and examples of each tier to read."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from hins_memory.mining.negatives.ratio import RatioEstimate
from hins_memory.mining.negatives.tiers import PAPER_TIERS
from hins_memory.types import Ratio, TieredExample

__all__ = ["MineReport", "TierSample"]

_SAMPLES_PER_TIER = 3
_SAMPLE_CHARS = 300


@dataclass(frozen=True, slots=True)
class TierSample:
    """One negative beside its query and positive, cut to a readable length."""

    query: str
    positive: str
    negative: str


@dataclass(slots=True)
class MineReport:
    """What was read, what was kept, and what was skipped and why; `to_dict` is ready for JSON."""

    owners: int = 0
    conversations: int = 0
    topics: int = 0
    memories: int = 0
    deleted: int = 0
    queries: int = 0
    examples: int = 0
    positives: dict[str, int] = field(default_factory=dict)
    mean_confidence: dict[str, float] = field(default_factory=dict)
    #: how many negatives of each of the paper's tiers
    negatives: dict[str, int] = field(default_factory=lambda: {tier.value: 0 for tier in PAPER_TIERS})
    #: how often the current encoder ranked a memory of each tier in its top k for a real query
    ranked: dict[str, int] = field(default_factory=dict)
    ratio: Ratio | None = None
    ratio_interval: dict[str, tuple[float, float]] = field(default_factory=dict)
    #: the ratio that each owner's negatives followed, by the owner's key
    owner_ratios: dict[str, Ratio] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    samples: dict[str, list[TierSample]] = field(default_factory=lambda: {tier.value: [] for tier in PAPER_TIERS})

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON types."""
        return asdict(self)

    def set_ratio(self, estimate: RatioEstimate) -> None:
        """Record the ratio over all owners and its 95% interval."""
        self.ratio = estimate.ratio
        self.ratio_interval = {tier.value: limits for tier, limits in estimate.interval.items()}

    def add_example(self, example: TieredExample) -> None:
        """Count a kept example, and keep some of each tier to read, of different queries."""
        self.examples += 1
        source, confidence = example.positive.source, example.positive.confidence
        count = self.positives.get(source, 0) + 1
        before = self.mean_confidence.get(source, 0.0)
        self.positives[source] = count
        self.mean_confidence[source] = before + (confidence - before) / count
        query = example.positive.query[:_SAMPLE_CHARS]
        for negative in example.negatives:
            # A tier is a string, and taking its `value` costs more than all else here.
            self.negatives[negative.tier] += 1
            chosen = self.samples[negative.tier]
            if len(chosen) < _SAMPLES_PER_TIER and all(sample.query != query for sample in chosen):
                texts = (example.positive.text, negative.text)
                chosen.append(TierSample(query, *(text[:_SAMPLE_CHARS] for text in texts)))
