"""SQLite connections that keep their file locks: one engine for each file in a process, none open across a fork.

POSIX file locks belong to a process and a file, not to a descriptor, and SQLite relies on them. The consequences,
and the reason for each part of this module, are in docs/decisions/0016-sqlite-locks.md.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import sqlite3
import tempfile
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa

from hins_memory.common.files import file_identity

__all__ = ["LOCK_SECONDS", "WAL_BYTES", "create_file", "shared_engine", "sqlite_engine"]

logger = logging.getLogger(__name__)

#: How long a statement waits for a lock that another connection holds.
LOCK_SECONDS = 30.0
#: A write-ahead log is cut to this size once it was written back, and is written back when it has twice as much.
WAL_BYTES = 4 * 2**20
# A log that a reader's snapshot holds back is tried again after this many seconds.
_CHECKPOINT_SECONDS = 1.0
#: How long a fork waits for the transactions of other threads.
_FORK_SECONDS = 10.0


class _Connection(sqlite3.Connection):
    """A connection that knows which file it is open on, and that a forked child cannot use by mistake."""

    file: tuple[int, int] | None = None
    #: Opened before this process was forked: it belongs to the parent process.
    foreign = False

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        self._check()
        return super().cursor(*args, **kwargs)

    def commit(self) -> None:
        self._check()
        super().commit()

    def rollback(self) -> None:
        # Neither rolled back nor closed in a child: both would change memory that the parent's transaction uses.
        if not self.foreign:
            super().rollback()

    def close(self) -> None:
        if not self.foreign:
            super().close()
            _connections.forget(self)

    def _check(self) -> None:
        if self.foreign:
            raise sqlite3.ProgrammingError("the connection was opened before this process was forked")


class _Connections:
    """The open SQLite connections of this process, and what keeps them closed while it forks."""

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.RLock())
        self._open: weakref.WeakSet[_Connection] = weakref.WeakSet()
        # connection -> the thread that uses it
        self._used: weakref.WeakKeyDictionary[_Connection, int] = weakref.WeakKeyDictionary()
        self._forking = False
        # Files that were in use in the parent while this process was forked.
        self._lost: set[tuple[int, int]] = set()

    def connect(self, path: str, *, wait: bool = True) -> _Connection:
        """Open a connection; while a fork waits for those that are open, wait for it or raise an OperationalError."""
        with self._changed:
            if self._forking and not wait:
                raise sqlite3.OperationalError("this process is being forked")
            self._changed.wait_for(lambda: not self._forking)
            if file_identity(path) in self._lost:
                raise sqlite3.OperationalError(
                    "this process was forked while a transaction was open, and cannot share the database's locks"
                )
            # mode=rw: a file that is missing is an error here; open_database makes it, with its mode and its tables.
            uri = f"file:{quote(os.fsencode(path))}?mode=rw"
            # isolation_level None: transactions begin at our BEGIN, not where Python's sqlite3 starts one by itself.
            connection = sqlite3.connect(
                uri, LOCK_SECONDS, isolation_level=None, check_same_thread=False, factory=_Connection, uri=True
            )
            connection.file = file_identity(path)
            self._open.add(connection)
            self._used[connection] = threading.get_ident()
            return connection

    def check_out(self, connection: _Connection, path: str) -> None:
        """Note that a thread begins to use a connection.

        Raises:
            DisconnectionError: it must not be used any more; SQLAlchemy then opens another one.
        """
        with self._changed:
            fresh = connection in self._used
            if not fresh and (self._forking or connection not in self._open or connection.file != file_identity(path)):
                raise sa.exc.DisconnectionError("closed for a fork, or the file was replaced")
            self._used[connection] = threading.get_ident()

    def check_in(self, connection: _Connection) -> None:
        with self._changed:
            self._used.pop(connection, None)
            self._changed.notify_all()

    def forget(self, connection: _Connection) -> None:
        with self._changed:
            self._open.discard(connection)
            self._used.pop(connection, None)
            self._changed.notify_all()

    def before_fork(self) -> None:
        """Close every connection, waiting a while for those in use; none opens until the fork is done."""
        self._changed.acquire()
        self._forking = True
        # If the forking thread is in a transaction, that cannot end during the fork, and waiting for it is pointless.
        waiting_can_help = threading.get_ident() not in self._used.values()
        self._changed.wait_for(self._close_unused, _FORK_SECONDS if waiting_can_help else 0)

    def _close_unused(self) -> bool:
        for connection in [connection for connection in self._open if connection not in self._used]:
            connection.close()
        return not self._open

    def after_fork_in_parent(self) -> None:
        self._forking = False
        self._changed.notify_all()
        self._changed.release()

    def in_child(self) -> _Connections:
        """Return the connections of a forked child: none, and it refuses files that could not be closed in time."""
        new = _Connections()
        new._lost = set(self._lost)
        for connection in self._open:
            connection.foreign = True
            # Never freed: that would end its transaction, in memory that the parent shares.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
            if connection.file is not None:
                new._lost.add(connection.file)
        return new


class _Checkpoint:
    """Writes the write-ahead log back to the database while no transaction can write.

    SQLite would do that by itself behind any commit, beside the writers. Up to 3.51.2 (but for 3.44.6 and 3.50.7) it
    loses a commit when two such checkpoints and a commit that begins the log anew come together
    (https://www.sqlite.org/wal.html#the_wal_reset_bug). The reads of others are not waited for.

    Args:
        path: the database.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._tried = float("-inf")

    def run_if_due(self, connection: _Connection) -> None:
        """Write the log back if it is long; errors are left to the next time.

        Args:
            connection: one outside of any transaction.
        """
        if time.monotonic() - self._tried < _CHECKPOINT_SECONDS or self._log_bytes() < 2 * WAL_BYTES:
            return
        self._tried = time.monotonic()
        try:
            connection.execute("BEGIN IMMEDIATE")
            try:
                # SQLite writes nothing back in a transaction of the same connection.
                with contextlib.closing(_connections.connect(self._path, wait=False)) as other:
                    other.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            finally:
                connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            logger.info("The write-ahead log of %s was not written back: %s", self._path, error)

    def _log_bytes(self) -> int:
        try:
            return os.stat(f"{self._path}-wal").st_size
        except OSError:
            return 0


_connections = _Connections()
_engines: weakref.WeakValueDictionary[str, sa.Engine] = weakref.WeakValueDictionary()
_engines_lock = threading.RLock()


def shared_engine(key: str, make: Callable[[], sa.Engine]) -> sa.Engine:
    """Return this process's engine of a database, made by the first call; it is freed with its last user."""
    with _engines_lock:
        engine = _engines.get(key)
        if engine is None:
            engine = _engines[key] = make()
        return engine


def sqlite_engine(url: sa.URL, path: str, prepare: Callable[[sqlite3.Connection], None]) -> sa.Engine:
    """Return an engine of a SQLite file that exists.

    Args:
        url: names the database in messages.
        path: the file, absolute.
        prepare: called with each new connection.
    """
    # hide_parameters: an error message must not repeat what people said.
    engine = sa.create_engine(url, creator=lambda: _connections.connect(path), hide_parameters=True)
    sa.event.listen(engine, "connect", lambda connection, _record: _prepare_or_close(connection, prepare))
    sa.event.listen(engine, "checkout", lambda connection, _record, _proxy: _connections.check_out(connection, path))
    checkpoint = _Checkpoint(path)
    sa.event.listen(engine, "checkin", lambda connection, _record: _check_in(connection, checkpoint))
    return engine


def _prepare_or_close(connection: _Connection, prepare: Callable[[sqlite3.Connection], None]) -> None:
    try:
        prepare(connection)
    except BaseException:
        connection.close()
        raise


def _check_in(connection: _Connection | None, checkpoint: _Checkpoint) -> None:
    # None: it was invalidated, and closed by that.
    if connection is not None:
        if not connection.foreign:
            checkpoint.run_if_due(connection)
        _connections.check_in(connection)


def create_file(path: Path) -> None:
    """Create an empty file that only its owner may read, unless it exists; the file itself is not opened for that.

    Raises:
        OSError: the folder cannot be made or written.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.exists():
        return
    # Made and closed under another name: closing a descriptor of the file itself would drop the locks of other code
    # in this process that has opened it meanwhile.
    descriptor, scratch = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    os.close(descriptor)
    try:
        os.link(scratch, path)
    except FileExistsError:
        pass
    except OSError:
        # A file system without hard links, such as exFAT, has no modes to set either.
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA schema_version")
    finally:
        os.unlink(scratch)


def _before_fork() -> None:
    _engines_lock.acquire()
    _connections.before_fork()


def _after_fork_in_parent() -> None:
    _connections.after_fork_in_parent()
    _engines_lock.release()


def _after_fork_in_child() -> None:
    global _engines_lock, _connections
    _engines_lock = threading.RLock()
    _connections = _connections.in_child()
    for engine in list(_engines.values()):
        # The parent still uses its connections: here they are forgotten, not closed.
        engine.dispose(close=False)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
