"""Embedded Qdrant clients, one for a folder and process: the folder is locked, so it cannot be opened twice."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hins_memory.errors import AgentError

__all__ = ["acquire_client", "release_client"]


@dataclass
class _Shared:
    client: Any
    users: int = 0


_open: dict[str, _Shared] = {}
_lock = threading.Lock()
# Folders given back and not yet dealt with: a finalizer may give one back while this very thread holds the lock.
_given_back: deque[str] = deque()


def acquire_client(path: str) -> Any:
    """Return the client of an embedded Qdrant folder, opened or shared; pair with `release_client`.

    Raises:
        AgentError: another process holds the folder, or it cannot be opened.
    """
    folder = str(Path(path).resolve())
    with _lock:
        _settle()
        shared = _open.get(folder)
        if shared is None:
            shared = _open[folder] = _Shared(_connect(folder))
        shared.users += 1
    _try_to_settle()
    return shared.client


def release_client(path: str) -> None:
    """Give a client back; the last one closes it, which frees the folder for other processes. Never waits."""
    _given_back.append(str(Path(path).resolve()))
    _try_to_settle()


def _try_to_settle() -> None:
    # Whoever holds the lock looks again after letting go, so nothing stays behind.
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


def _connect(folder: str) -> Any:
    from qdrant_client import QdrantClient

    try:
        return QdrantClient(path=folder)
    except RuntimeError as error:
        if "already accessed" not in str(error):
            raise AgentError(f"The embedded Qdrant in {folder} cannot be opened: {error}") from error
        raise AgentError(
            f"The embedded Qdrant in {folder} is open elsewhere: in another process, or in this one by a "
            "Memory that was not made by hins-memory.",
            "Close it there first, or use a Qdrant server (vector_store config with host and port), which many "
            "processes can share.",
        ) from error
    except (OSError, ValueError) as error:
        raise AgentError(
            f"The embedded Qdrant in {folder} cannot be opened: {type(error).__name__}: {error}",
            "Check that the folder is writable and that the disk is not full.",
        ) from error
