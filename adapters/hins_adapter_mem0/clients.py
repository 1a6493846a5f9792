"""The folders of embedded stores: each is open in one process only, and shared by all objects there."""

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
from hins_memory.errors import AgentError

__all__ = ["acquire_client", "acquire_folder", "release_client"]

_LOCK_NAME = ".hins.lock"


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
    return _acquire(path, _connect)


def acquire_folder(path: str, provider: str) -> Any:
    """Hold the folder of an embedded store that keeps no other process out by itself; pair with `release_client`.

    Mem0's faiss keeps its rows in memory and writes all of them each time, and embedded Chroma does not see what
    another process writes: two processes would undo each other's work without a word.

    Raises:
        AgentError: another process holds the folder, or it cannot be written.
    """
    return _acquire(path, lambda folder: _hold(folder, provider))


def _acquire(path: str, connect: Callable[[str], Any]) -> Any:
    folder = str(Path(path).resolve())
    with _lock:
        _settle()
        shared = _open.get(folder)
        if shared is None:
            with contextlib.suppress(OSError):  # what connects says what is wrong
                private_folder(Path(folder))
            shared = _open[folder] = _Shared(connect(folder))
        shared.users += 1
    _try_to_settle()
    return shared.client


def release_client(path: str) -> None:
    """Give a client back; the last one closes it, which frees the folder for other processes. Never waits."""
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


def _hold(folder: str, provider: str) -> ExitStack:
    stack = ExitStack()
    try:
        stack.enter_context(file_lock(Path(folder) / _LOCK_NAME, wait=False))
    except BlockingIOError as error:
        raise AgentError(
            f"The embedded {provider} store in {folder} is open in another process.",
            "Close it there first, or use a store with a server (chroma with host and port, pgvector, qdrant), which "
            "many processes can share.",
        ) from error
    except OSError as error:
        raise AgentError(
            f"The embedded {provider} store in {folder} cannot be opened: {error}",
            "Check that the folder is writable and that the disk is not full.",
        ) from error
    return stack
