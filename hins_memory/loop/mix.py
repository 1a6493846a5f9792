"""Mixing synthetic and captured examples: fewer synthetic ones are used as captured ones arrive."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from hins_memory.data.examples import read_examples, write_examples
from hins_memory.errors import ConfigError

__all__ = ["MixSettings", "mix_file"]


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


def mix_file(path: Path, settings: MixSettings, seed: int = 0) -> dict[str, Any]:
    """Rewrite a file of examples with all captured ones and the share of the synthetic ones that is still used.

    Args:
        path: a Parquet file of `hins_memory.data.examples`; replaced where something is left out.
        settings: the share.
        seed: decides which synthetic ones stay.

    Returns:
        The numbers for a version's manifest.

    Raises:
        HinsError: the file cannot be read.
        OSError: it cannot be written.
    """
    is_synthetic = [example.scope.synthetic for example in read_examples(path)]
    synthetic = [row for row, synthetic_row in enumerate(is_synthetic) if synthetic_row]
    captured = len(is_synthetic) - len(synthetic)
    used = settings.used(len(synthetic), captured)
    left_out = set(synthetic) - set(Random(seed).sample(synthetic, used))
    if left_out:
        temporary = path.with_name(f"{path.name}.mixed")
        examples = (example for row, example in enumerate(read_examples(path)) if row not in left_out)
        write_examples(temporary, examples)
        os.replace(temporary, path)
    return {
        "captured": captured,
        "synthetic": used,
        "synthetic_available": len(synthetic),
        "synthetic_share": round(used / (captured + used), 4) if captured + used else 0.0,
        "weight": settings.weight,
        "half": settings.half,
    }
