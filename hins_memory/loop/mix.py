"""Mixing synthetic and captured examples: fewer synthetic ones are used as captured ones arrive."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random
from typing import Any

from hins_memory.data.examples import read_examples, write_examples

__all__ = ["mix_file", "synthetic_used"]


# Captured examples beside which half of the synthetic ones are used; assumed.
_HALF = 500


def synthetic_used(synthetic: int, captured: int) -> int:
    """Return how many of the synthetic examples are used beside captured ones.

    All of them while there is no traffic, half of them at 500 captured examples, a tenth at nine times as many.
    """
    return round(synthetic * _HALF / (_HALF + captured))


def mix_file(path: Path, seed: int = 0) -> dict[str, Any]:
    """Rewrite a file of examples with all captured ones and the share of the synthetic ones that is still used.

    Args:
        path: a Parquet file of `hins_memory.data.examples`; replaced where something is left out.
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
    used = synthetic_used(len(synthetic), captured)
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
        "half": _HALF,
    }
