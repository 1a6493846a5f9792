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
class _Shared:
    client: Any
    users: int = 0


_open: dict[str, _Shared] = {}
_lock = threading.Lock()
# Folders given back and not yet dealt with: a finalizer may give one back while this very thread holds the lock.
_given_back: deque[str] = deque()


def acquire_folder(path: str, provider: str) -> Any:
    """Return the client of an embedded Qdrant folder, opened or shared, or hold another store's folder.

    Only Qdrant keeps other processes out by itself. Mem0's faiss keeps its rows in memory and writes all of them each
    time, and embedded Chroma does not see what another process writes: two processes would undo each other's work
    without a word. Pair with `release_folder`.

    Raises:
        AgentError: another process holds the folder, or it cannot be opened or written.
    """
    folder = str(Path(path).resolve())
    with _lock:
        _settle()
        shared = _open.get(folder)
        if shared is None:
            with contextlib.suppress(OSError):  # what connects says what is wrong
                private_folder(Path(folder))
            shared = _open[folder] = _Shared(_connect(folder, provider))
        shared.users += 1
    _try_to_settle()
    return shared.client


def release_folder(path: str) -> None:
    """Give a folder back; the last user closes it, which frees the folder for other processes. Never waits."""
    _given_back.append(str(Path(path).resolve()))
    _try_to_settle()


def _try_to_settle() -> None:
    # The holder of the lock looks again after releasing it, so that nothing is left.
    while _given_back and _lock.acquire(blocking=False):
        try:
            _settle()
        finally:
            _lock.release()


def _settle() -> None:
    while _given_back:
        folder = _given_back.popleft()
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
        held = ExitStack()
        held.enter_context(file_lock(Path(folder) / _LOCK_NAME, wait=False))
        return held
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
