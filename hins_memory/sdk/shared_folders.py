"""The folders of embedded stores: each is open once in a process, shared by all objects there."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hins_memory.common.files import file_lock, private_folder

__all__ = ["SharedFolders", "lock_folder"]

_LOCK_NAME = ".hins.lock"


@dataclass
class _OpenFolder:
    client: Any
    users: int = 0


class SharedFolders:
    """Folders that are open in this process, each with how many use it."""

    def __init__(self) -> None:
        self._open: dict[str, _OpenFolder] = {}
        self._lock = threading.Lock()
        # Released and not closed yet: a finalizer may release a folder while this thread holds the lock.
        self._released: deque[str] = deque()

    def acquire(self, path: str, connect: Callable[[Path], Any]) -> Any:
        """Return what a folder is open with, opened by `connect` for its first user. Pair with `release`.

        Args:
            path: the folder; made private if it is not there.
            connect: opens it; what it returns has a method ``close``.

        Raises:
            Exception: what `connect` raised.
        """
        folder = Path(path).resolve()
        with self._lock:
            self._close_released()
            shared = self._open.get(str(folder))
            if shared is None:
                with contextlib.suppress(OSError):  # connecting reports the error
                    private_folder(folder)
                shared = self._open[str(folder)] = _OpenFolder(connect(folder))
            shared.users += 1
        self._close_released_if_free()
        return shared.client

    def release(self, path: str) -> None:
        """Leave a folder; after the last user it is closed, so that other processes can open it. Never waits."""
        self._released.append(str(Path(path).resolve()))
        self._close_released_if_free()

    def _close_released_if_free(self) -> None:
        # The holder of the lock checks again after releasing it, so that no folder is left.
        while self._released and self._lock.acquire(blocking=False):
            try:
                self._close_released()
            finally:
                self._lock.release()

    def _close_released(self) -> None:
        while self._released:
            folder = self._released.popleft()
            shared = self._open.get(folder)
            if shared is None:
                continue
            shared.users -= 1
            if shared.users <= 0:
                del self._open[folder]
                shared.client.close()


def lock_folder(folder: Path) -> ExitStack:
    """Keep other processes out of a folder until the result is closed, for stores that do not do so themselves.

    Raises:
        BlockingIOError: another process holds it.
        OSError: it cannot be written.
    """
    lock = ExitStack()
    lock.enter_context(file_lock(folder / _LOCK_NAME, wait=False))
    return lock
