"""Calls a function when this process ends, whatever kind of process it is."""

from __future__ import annotations

import atexit
import sys
from collections.abc import Callable
from multiprocessing import util

__all__ = ["at_process_end", "at_worker_end"]


def at_process_end(close: Callable[[], None]) -> None:
    """Call a function at the clean end of this process, and of its children of multiprocessing or Celery's billiard."""
    atexit.register(close)

    def finalize(_: object = None) -> None:
        util.Finalize(None, close, exitpriority=10)

    # Such a child does not run atexit's functions, but it does run finalizers of multiprocessing. When it starts, it
    # drops its parent's finalizers, and then calls what is registered to run after the fork.
    finalize()
    util.register_after_fork(close, finalize)


def at_worker_end(close: Callable[[], None]) -> None:
    """Call a function at the end of a Celery worker's process as well, which its pool ends by `os._exit`."""
    signals = sys.modules.get("celery.signals")
    if signals is not None:
        signals.worker_process_shutdown.connect(lambda **_: close(), weak=False, dispatch_uid=close.__qualname__)
