"""The folders of embedded stores: each is open in one process only, and shared by all objects there."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from hins_memory.errors import AgentError
from hins_memory.sdk.shared_folders import SharedFolders, lock_folder

__all__ = ["acquire_folder", "release_folder"]

_FOLDERS = SharedFolders()
release_folder = _FOLDERS.release


def acquire_folder(path: str, provider: str) -> Any:
    """Open or share the folder of an embedded store: return Qdrant's client, or a lock on another store's folder.

    Only Qdrant keeps other processes out by itself. Mem0's faiss keeps its rows in memory and writes all of them each
    time, and embedded Chroma does not see what another process writes: two processes would overwrite each other's
    writes without any error. Pair with `release_folder`.

    Raises:
        AgentError: another process holds the folder, or it cannot be opened or written.
    """
    return _FOLDERS.acquire(path, partial(_connect, provider))


def _connect(provider: str, folder: Path) -> Any:
    try:
        if provider == "qdrant":
            from qdrant_client import QdrantClient

            return QdrantClient(path=str(folder))
        return lock_folder(folder)
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
