"""Synthetic and captured examples together: the synthetic ones fade as real outcomes arrive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from hins_memory.errors import ConfigError
from hins_memory.types import TieredExample

__all__ = ["MixSettings", "Mixed", "mix"]


@dataclass(frozen=True, slots=True)
class MixSettings:
    """How much of the synthetic examples is trained on.

    Of S synthetic examples beside C captured ones, ``weight * S * half / (half + C)`` are used: all of them while there
    is no traffic, half of them at `half` captured examples, a tenth at nine times as many.

    Args:
        weight: share used while nothing is captured, 0 to 1; 0 never uses any.
        half: captured examples at which half of that is left.

    Raises:
        ConfigError: a value is out of range.
    """

    weight: float = 1.0
    half: int = 500

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 1 or self.half < 1:
            raise ConfigError(f"weight={self.weight}, half={self.half}.", "Use a weight from 0 to 1 and a half over 0.")

    def used(self, synthetic: int, captured: int) -> int:
        """Return how many of the synthetic examples are used."""
        return round(self.weight * synthetic * self.half / (self.half + captured))


@dataclass(frozen=True, slots=True)
class Mixed:
    """The examples to train on, in their order, and what the manifest says of them."""

    examples: list[TieredExample]
    manifest: dict[str, Any]


def mix(examples: Sequence[TieredExample], settings: MixSettings, seed: int = 0) -> Mixed:
    """Return all captured examples and the share of the synthetic ones that is still used; the same for a seed."""
    synthetic = [place for place, example in enumerate(examples) if example.scope.synthetic]
    captured = len(examples) - len(synthetic)
    used = settings.used(len(synthetic), captured)
    left_out = set(synthetic) - set(Random(seed).sample(synthetic, used))
    kept = [example for place, example in enumerate(examples) if place not in left_out]
    manifest = {
        "captured": captured,
        "synthetic": used,
        "synthetic_available": len(synthetic),
        "synthetic_share": round(used / len(kept), 4) if kept else 0.0,
        "weight": settings.weight,
        "half": settings.half,
    }
    return Mixed(kept, manifest)
