"""The command line ``hins``."""

import traceback

from hins_memory.cli.app import app
from hins_memory.cli.terminal import guard_streams

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line and exit with its status."""
    guard_streams()
    try:
        app()
    except Exception:
        # Printed here, because the interpreter from Python 3.13 on writes colours to any stderr.
        traceback.print_exc()
        raise SystemExit(1) from None
