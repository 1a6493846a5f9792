"""A readers-writer lock: operations share it, a flip holds it alone; operations hardly ever wait."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["FlipLock"]

# How long a flip waits for a moment without operations before it makes new ones wait. An operation may hold the lock
# during a call of the language model, so new operations are let through first.
_PATIENCE_SECONDS = 2.0


class FlipLock:
    """Shared by operations, exclusive for a flip. Not reentrant: a thread that holds it must not acquire it again."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._operations = 0
        self._closed = False

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Hold it together with other operations; waits only while a flip has it, or has waited for long."""
        with self._changed:
            self._changed.wait_for(lambda: not self._closed)
            self._operations += 1
        try:
            yield
        finally:
            with self._changed:
                self._operations -= 1
                self._changed.notify_all()

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold it alone, after the operations that run have ended."""
        with self._changed:
            self._changed.wait_for(lambda: not self._closed and not self._operations, _PATIENCE_SECONDS)
            self._changed.wait_for(lambda: not self._closed)
            self._closed = True
            self._changed.wait_for(lambda: not self._operations)
        try:
            yield
        finally:
            with self._changed:
                self._closed = False
                self._changed.notify_all()
