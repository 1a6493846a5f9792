"""Waiting for what other threads and processes do, with a limit that even a busy machine keeps."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["until"]

#: seconds; only a test that fails takes as long
_LIMIT = 120.0


def until(condition: Callable[[], object]) -> None:
    """Wait until the condition holds; it is an error if it never does."""
    end = time.monotonic() + _LIMIT
    while not condition():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.005)
