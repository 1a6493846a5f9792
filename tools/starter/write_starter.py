"""Write the packaged starter: the first seed of benchmarks/start.py as a low-rank delta, with what it was made from.

    python benchmarks/start.py --corpus valid.csv test.csv --data locomo10.json --seeds 1 --work WORK --json RESULT
    python tools/starter/write_starter.py --work WORK --result RESULT --to hins_memory/data/starter.safetensors

`make starter` runs both.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from hins_memory.encoders.encoder import resolve_model
from hins_memory.encoders.starter import write_delta
from hins_memory.errors import ConfigError, HinsError

__all__ = ["main", "write_starter"]

# To be chosen again when the recipe changes, with `benchmarks/fusion.py --data sample`: docs/decisions/0024.
_KEYWORD_WEIGHT = 0.05
# As much as two megabytes hold. A training changes matrices by the rank of its LoRA, an average of two by twice that.
_MAX_RANK = 23


def write_starter(work: Path, result: Path, target: Path, base: Path) -> str:
    """Write the delta of a result's first seed, and ``.json`` beside it with its digest, recipe, seed and figures.

    Args:
        work: the folder in which the benchmark kept its seeds.
        result: the JSON file that the same run wrote.
        target: the file to write.
        base: the folder of the model that training began with.

    Returns:
        The SHA-256 of the delta.

    Raises:
        ConfigError: a file is missing, or the result is of another run.
        EncoderError: the trained model does not fit the base.
    """
    try:
        scored = json.loads(result.read_text(encoding="utf-8"))
        seed = int(scored["settings"]["seed"])
        folder = work / f"seed-{seed}"
        recipe = dict(json.loads((folder / "record.json").read_text(encoding="utf-8"))["recipe"])
        row = next(row for row in scored["rows"] if row["encoder"] == f"seed {seed}")
        # The sets that the benchmark averages over the seeds are the ones it shows.
        figures = {name: value for name, value in row.items() if f"{name}_mean" in scored["figures"]}
        rank = min(_MAX_RANK, int(recipe["lora_rank"]) * (2 if recipe.get("first_share") else 1))
        other = sorted(name for name, value in recipe.items() if scored["settings"][name] != value)
    except (OSError, ValueError, LookupError, TypeError, StopIteration) as error:
        raise ConfigError(
            f"{result} and {work} are not of a run of benchmarks/start.py: {error!r}.",
            "Run it with --seeds 1, --work and --json.",
        ) from error
    if other:
        raise ConfigError(
            f"{folder} was trained by another recipe than {result} says: {', '.join(other)}.",
            "Run benchmarks/start.py again, without --quick.",
        )
    about = {"recipe": recipe, "seed": seed, "figures": figures}
    return write_delta(base, folder / "model", target, rank, about, _KEYWORD_WEIGHT)


def main(argv: Sequence[str] | None = None) -> int:
    """Write the starter and return the exit status."""
    parser = argparse.ArgumentParser(description="Write the packaged starter from a run of benchmarks/start.py.")
    parser.add_argument("--work", type=Path, metavar="DIR", required=True, help="the benchmark's --work")
    parser.add_argument("--result", type=Path, metavar="FILE", required=True, help="the benchmark's --json")
    parser.add_argument("--to", type=Path, metavar="FILE", required=True, help="the delta to write")
    arguments = parser.parse_args(argv)
    try:
        digest = write_starter(arguments.work, arguments.result, arguments.to, Path(resolve_model("stock")))
    except HinsError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{arguments.to}: {arguments.to.stat().st_size} bytes, SHA-256 {digest}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
