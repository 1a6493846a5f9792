"""Calls that are awaited, for those who cannot await them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

__all__ = ["finish"]

_Result = TypeVar("_Result")


def finish(call: Callable[[], Coroutine[Any, Any, _Result]]) -> _Result:
    """Return what a coroutine function returns, in an event loop of its own: the caller's may be waiting for this."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: asyncio.run(call())).result()
