"""The command line that every benchmark shares: its arguments and its exit status."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from hins_memory.errors import HinsError

__all__ = ["base_parser", "exit_status"]


def base_parser(description: str) -> argparse.ArgumentParser:
    """Return a parser with the arguments of every benchmark: ``--seed``, ``--quick`` and ``--json``."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--seed", type=int, default=0, help="seed of everything random (default 0)")
    parser.add_argument("--quick", action="store_true", help="a small run of under a minute, to see that it works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write figures, rows, settings and versions there")
    return parser


def exit_status(main: Callable[[], None]) -> int:
    """Run `main` and return the exit status: 0, or that of a `HinsError`, whose message goes to standard error."""
    try:
        main()
    except HinsError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0
