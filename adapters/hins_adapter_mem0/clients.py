"""The folders of embedded stores: each is open in one process only, and shared by all objects there."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hins_memory.common.files import file_lock, private_folder
from hins_memory.errors import AgentError

__all__ = ["acquire_folder", "release_folder"]

_LOCK_NAME = ".hins.lock"


@dataclass
class _OpenFolder:
    client: Any
    users: int = 0


_open: dict[str, _OpenFolder] = {}
_lock = threading.Lock()
# Folders that were released and are not closed yet: a finalizer may release one while this thread holds the lock.
_released: deque[str] = deque()


def acquire_folder(path: str, provider: str) -> Any:
    """Open or share the folder of an embedded store: return Qdrant's client, or a lock on another store's folder.

    Only Qdrant keeps other processes out by itself. Mem0's faiss keeps its rows in memory and writes all of them each
    time, and embedded Chroma does not see what another process writes: two processes would overwrite each other's
    writes without any error. Pair with `release_folder`.

    Raises:
        AgentError: another process holds the folder, or it cannot be opened or written.
    """
    folder = str(Path(path).resolve())
    with _lock:
        _close_released()
        shared = _open.get(folder)
        if shared is None:
            with contextlib.suppress(OSError):  # connecting reports the error
                private_folder(Path(folder))
            shared = _open[folder] = _OpenFolder(_connect(folder, provider))
        shared.users += 1
    _close_released_if_free()
    return shared.client


def release_folder(path: str) -> None:
    """Release a folder; after the last user it is closed, so that other processes can open it. Never waits."""
    _released.append(str(Path(path).resolve()))
    _close_released_if_free()


def _close_released_if_free() -> None:
    # The holder of the lock checks again after releasing it, so that no folder is left.
    while _released and _lock.acquire(blocking=False):
        try:
            _close_released()
        finally:
            _lock.release()


def _close_released() -> None:
    while _released:
        folder = _released.popleft()
        shared = _open.get(folder)
        if shared is None:
            continue
        shared.users -= 1
        if shared.users <= 0:
            del _open[folder]
            shared.client.close()


def _connect(folder: str, provider: str) -> Any:
    try:
        if provider == "qdrant":
            from qdrant_client import QdrantClient

            return QdrantClient(path=folder)
        lock = ExitStack()
        lock.enter_context(file_lock(Path(folder) / _LOCK_NAME, wait=False))
        return lock
    except (OSError, ValueError, RuntimeError) as error:
        store = f"The embedded {provider.capitalize()} in {folder}"
        if isinstance(error, BlockingIOError) or "already accessed" in str(error):
            raise AgentError(
                f"{store} is open elsewhere: in another process, or in this one by a Memory that was not made by "
                "hins-memory.",
                "Close it there first, or use a store with a server (Qdrant or Chroma with host and port, pgvector), "
                "which many processes can share.",
            ) from error
        raise AgentError(
            f"{store} cannot be opened: {type(error).__name__}: {error}",
            "Check that the folder is writable and that the disk is not full.",
        ) from error
