"""One capture for all agent objects of a project in this process: one queue and one writer thread, not one each."""

from __future__ import annotations

import threading
import weakref
from typing import Any

from hins_memory.config import Settings
from hins_memory.log.capture import Capture

__all__ = ["join_capture", "leave_capture"]

_lock = threading.Lock()
_captures: dict[Settings, tuple[Capture, weakref.WeakSet[Any]]] = {}


def join_capture(settings: Settings, user: Any) -> Capture:
    """Return the project's capture, with an agent object as one of its users."""
    with _lock:
        if settings not in _captures:
            _captures[settings] = (Capture(settings), weakref.WeakSet())
        capture, users = _captures[settings]
        users.add(user)
        return capture


def leave_capture(settings: Settings, user: Any) -> None:
    """Write what waits, and close the capture when its last user leaves.

    An object that is freed without this call leaves its capture open: what waits is still written, at the latest when
    the interpreter exits. A finalizer does nothing, because it may run while this thread holds a lock.
    """
    with _lock:
        if settings not in _captures:
            return
        capture, users = _captures[settings]
        if user not in users:
            return
        users.discard(user)
        if not users:
            del _captures[settings]
    if users:
        capture.flush()
    else:
        capture.close()
