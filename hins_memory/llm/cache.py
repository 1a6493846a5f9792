"""Replies cached on disk under the digest of the question; safe with many threads and processes, and with kill -9."""

from __future__ import annotations

import functools
import hashlib
import importlib
import json
import logging
import sqlite3
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hins_memory.common.files import private_file
from hins_memory.errors import ConfigError
from hins_memory.llm.budget import LlmError

__all__ = ["ReplyCache", "clear_cache", "package"]

logger = logging.getLogger(__name__)

_FILE = "cache.db"


class ReplyCache:
    """A cache on disk: the same question gets the reply that was given before.

    It holds digests of the questions, and replies as JSON. A reply that cannot be read counts as absent. A reply that
    cannot be written is not kept, which costs a later run and nothing else.

    Args:
        folder: where the replies are; made for its owner alone.

    Raises:
        ConfigError: the package diskcache is not installed.
    """

    def __init__(self, folder: Path | str) -> None:
        package("diskcache")
        self._folder = Path(folder).expanduser()
        self._store: Any = None
        self._opening = threading.Lock()
        self._warned = False

    def get(self, question: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the reply kept for a question, any JSON object; None where there is none."""
        text = self._call_store("get", _digest(question))
        try:
            reply = json.loads(text)
        except (TypeError, ValueError):
            return None
        return reply if isinstance(reply, dict) else None

    def put(self, question: Mapping[str, Any], reply: Mapping[str, Any]) -> None:
        """Keep the reply to a question."""
        self._call_store("set", _digest(question), json.dumps(reply))

    def _call_store(self, name: str, *arguments: str) -> Any:
        try:
            # Two threads that open a new store at once would lock each other out of it.
            with self._opening:
                if self._store is None:
                    self._store = _open_cache(self._folder)
            return getattr(self._store, name)(*arguments)
        except _cache_errors() as error:
            if not self._warned:
                logger.warning("Replies cannot be kept in %s: %s", self._folder, error)
            self._warned = True


def clear_cache(folder: Path | str) -> int:
    """Remove every reply that is kept in a folder, also for processes that use it; return how many there were.

    Nothing of them is left in the folder's files, those of versions before 0.2 (a file a reply) included.

    Raises:
        LlmError: they cannot be removed.
        ConfigError: there are replies, but the package diskcache is not installed.
    """
    folder, removed = Path(folder).expanduser(), 0
    try:
        for path in folder.glob("[0-9a-f][0-9a-f]/*.json"):
            path.unlink()
            removed += 1
        if (folder / _FILE).exists():
            with _open_cache(folder) as store:
                removed += store.clear()
    except _cache_errors() as error:
        raise LlmError(
            f"The replies kept in {folder} cannot be removed: {error}.", "Stop what uses them and delete the folder."
        ) from error
    return removed


def _digest(question: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()


def package(name: str) -> Any:
    """Import and return a package that is needed to ask language models only; an extra installs it.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        hint = 'Install it: pip install "hins-memory[synthesis]", or [bench] for the benchmarks.'
        raise ConfigError(f"Asking a language model needs the package {name}.", hint) from error


def _cache_errors() -> tuple[type[Exception], ...]:
    """Return what diskcache raises when a folder is not writable, busy, damaged or tampered with."""
    return (OSError, ValueError, TypeError, AttributeError, AssertionError, sqlite3.Error, package("diskcache").Timeout)


@functools.cache
def _texts_only() -> type[Any]:
    """Return diskcache's storage without pickle, which runs code when it reads, and without files of its own.

    diskcache's JSONDisk unpickles what the database says is pickled (CVE-2025-69872), and removes the files it names.
    """
    diskcache = package("diskcache")

    class Texts(diskcache.Disk):  # type: ignore[misc, name-defined]
        def fetch(self, mode: int, filename: str | None, value: Any, read: bool) -> Any:
            if mode != diskcache.core.MODE_RAW:
                raise ValueError("a reply is not a text; delete the folder")
            return value

        def remove(self, file_path: str) -> None:
            """Remove nothing: no reply has a file of its own."""

    return Texts


def _open_cache(folder: Path) -> Any:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # SQLite would make it readable by others. An existing file is not opened: closing it would drop SQLite's locks.
    private_file(folder / _FILE)
    return package("diskcache").Cache(
        str(folder),
        disk=_texts_only(),
        # Nothing is evicted, and everything is in the database, not in files beside it.
        eviction_policy="none",
        cull_limit=0,
        disk_min_file_size=2**40,
        # Removed texts are gone from the files at once: overwritten, and not left in a journal.
        sqlite_secure_delete=1,
        sqlite_journal_mode="truncate",
    )
