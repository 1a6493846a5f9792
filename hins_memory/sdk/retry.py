"""Repeats calls of stores that fail now and then."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from hins_memory.common.secrets import masked

__all__ = ["TRIES", "TRY_SECONDS", "with_retries"]

logger = logging.getLogger(__name__)

#: How often a call of a store is tried before it counts as failed, and the pause between two tries.
TRIES = 3
TRY_SECONDS = 0.05

_Result = TypeVar("_Result")


def with_retries(call: Callable[[], _Result]) -> _Result:
    """Call a store, and call it again after a failure, at most `TRIES` times; the call must be safe to repeat.

    Raises:
        Exception: what the store raised at the last try.
    """
    for _ in range(TRIES - 1):
        try:
            return call()
        except Exception as error:
            logger.info("A store failed and is tried again: %s", masked(str(error)))
            time.sleep(TRY_SECONDS)
    return call()
