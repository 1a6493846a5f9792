"""What the miner did: counts, ratio, what was skipped and why, and examples of each tier to read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from hins_memory.mine.ratio import RatioEstimate
from hins_memory.types import Ratio, Tier, TieredExample

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
    negatives: dict[str, int] = field(default_factory=dict)
    #: how often the current encoder ranked a memory of each tier in its top k for a real query
    ranked: dict[str, int] = field(default_factory=dict)
    ratio: Ratio | None = None
    ratio_interval: dict[str, tuple[float, float]] = field(default_factory=dict)
    #: the ratio that each owner's negatives followed, by the owner's key
    owner_ratios: dict[str, Ratio] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    samples: dict[str, list[TierSample]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON types."""
        return asdict(self)

    def set_ratio(self, estimate: RatioEstimate) -> None:
        """Record the ratio over all owners and its 95% interval."""
        self.ratio = estimate.ratio
        self.ratio_interval = {tier.value: limits for tier, limits in estimate.interval.items()}

    def add_examples(self, examples: Iterable[TieredExample]) -> None:
        """Count the kept examples and pick some of each tier to read."""
        sources: Counter[str] = Counter()
        confidence: Counter[str] = Counter()
        tiers: Counter[str] = Counter({tier.value: 0 for tier in Tier})
        self.samples = {tier.value: [] for tier in Tier}
        for example in examples:
            self.examples += 1
            sources[example.positive.source] += 1
            confidence[example.positive.source] += example.positive.confidence  # type: ignore[assignment]
            for negative in example.negatives:
                tiers[negative.tier.value] += 1
                chosen = self.samples[negative.tier.value]
                if len(chosen) < _SAMPLES_PER_TIER:
                    texts = (example.positive.query, example.positive.text, negative.text)
                    chosen.append(TierSample(*(text[:_SAMPLE_CHARS] for text in texts)))
        self.positives = dict(sources)
        self.mean_confidence = {source: confidence[source] / count for source, count in sources.items()}
        self.negatives = dict(tiers)
