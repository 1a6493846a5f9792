"""Leases in the project's database: locks with an end, for work that one process at a time may do, on any host.

A holder renews its lease while it works. If it dies, it does not renew, and the lease runs out. Beside the row in the
database every holder locks a file of its host. The kernel releases that lock when the process ends, so that after a
kill the next process of the same host can begin at once, and a change of the clock lets in no second one there.
Between hosts the clock of the database counts. If a change of that clock lets in a second holder, the token of the
first one is out of date, and `Lease.check` raises an error before the first one records anything.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import TextIO

import sqlalchemy as sa

from hins_memory.common.files import file_lock
from hins_memory.database.engine import database_errors, reading
from hins_memory.database.tables import leases
from hins_memory.errors import HinsError
from hins_memory.types import now

__all__ = ["Clock", "Lease", "LeaseHeldError", "LeaseLostError", "Leases", "database_clock"]

logger = logging.getLogger(__name__)

#: Returns the time in seconds since the Unix epoch (UTC), as of an open connection.
Clock = Callable[[sa.Connection], float]
# A lease that was not renewed for this time may be taken over. It is renewed four times as often.
_SECONDS = 60.0


class LeaseHeldError(HinsError):
    """Another holder has the lease. `holder` says who and since when, as far as it is known."""

    def __init__(self, name: str, holder: str) -> None:
        super().__init__(f"{name} is held by {holder}.", "Wait until that has ended.")
        self.holder = holder


class LeaseLostError(HinsError):
    """The lease was not renewed in time and may have another holder by now."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"The lease {name} was lost: it was not renewed in time, or another process took it over.",
            "Repeat the command; nothing was recorded under the lost lease.",
        )


def database_clock(connection: sa.Connection) -> float:
    """Return the time of the database's server in seconds since the Unix epoch; with SQLite, this host's time."""
    if connection.dialect.name == "postgresql":
        return float(connection.execute(sa.text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())
    return now()


class Leases:
    """The leases of one database.

    Args:
        engine: the database, opened by `open_database`.
        folder: where the locked files are; all processes of a project on a host use the same folder.
    """

    def __init__(self, engine: sa.Engine, folder: Path) -> None:
        self._engine = engine
        self._folder = folder

    @contextlib.contextmanager
    def hold(self, name: str) -> Iterator[Lease]:
        """Hold a lease, renewed by a thread, until the block ends.

        Raises:
            LeaseHeldError: another holder has it.
            LogError: the database cannot be written.
        """
        digest = hashlib.sha256(name.encode()).hexdigest()[:16]
        path = self._folder / f"{digest}.lock"
        with contextlib.ExitStack() as stack:
            try:
                lock = stack.enter_context(file_lock(path, wait=False))
            except BlockingIOError as error:
                raise LeaseHeldError(name, self.holder(name) or "another process of this host") from error
            lease = self._take(name, _place(lock))
            stop = threading.Event()
            renewer = threading.Thread(target=lease.renew_until, args=(stop,), name=f"hins-lease-{digest}", daemon=True)
            renewer.start()
            try:
                yield lease
            finally:
                stop.set()
                renewer.join()
                lease.release()

    def holder(self, name: str) -> str:
        """Return who holds a lease and since when, "" if it is free; an expired one is free."""
        with database_errors(self._engine.url), reading(self._engine).connect() as connection:
            row = connection.execute(sa.select(leases).where(leases.c.name == _key(name))).first()
            if row is None or not row.owner or row.expires <= database_clock(connection):
                return ""
        since = datetime.fromtimestamp(row.acquired, tz=timezone.utc)
        return f"{row.owner} since {since:%Y-%m-%d %H:%M:%S} UTC"

    def _take(self, name: str, place: str) -> Lease:
        mine, seconds = leases.c.name == _key(name), _SECONDS
        with _writing(self._engine) as connection:
            row = connection.execute(sa.select(leases).where(mine)).first()
            time = database_clock(connection)
            # The same place: its holder has ended, because this process has its file lock now.
            taken = row is None or not row.owner or row.place == place or row.expires <= time
            token = 1 if row is None else int(row.token) + 1
            if row is None:
                free = {"token": 0, "acquired": time, "expires": 0.0}
                connection.execute(sa.insert(leases).values(name=_key(name), **free))
            if taken:
                owner = f"process {os.getpid()} on {socket.gethostname()}"
                values = {"owner": owner, "place": place, "token": token, "acquired": time, "expires": time + seconds}
                connection.execute(sa.update(leases).where(mine).values(**values))
            elif row is not None and row.expires > time + seconds:
                # No lease lasts that long: the clock was set back. It ends by the new time.
                connection.execute(sa.update(leases).where(mine).values(expires=time + seconds))
        if not taken:
            raise LeaseHeldError(name, self.holder(name) or "another host")
        return Lease(self._engine, name, token)


class Lease:
    """A lease that is held. `token` is larger than that of every holder before."""

    def __init__(self, engine: sa.Engine, name: str, token: int) -> None:
        self.name = name
        self.token = token
        self._engine = engine

    def check(self, connection: sa.Connection) -> None:
        """Make sure, in the transaction that records what the lease allows, that it is still held.

        Raises:
            LeaseLostError: another holder took it over.
        """
        query = sa.select(leases.c.token).where(leases.c.name == _key(self.name))
        if connection.dialect.name == "postgresql":
            query = query.with_for_update()
        if connection.execute(query).scalar() != self.token:
            raise LeaseLostError(self.name)

    def renew(self) -> None:
        """Extend the lease to its whole duration from now on.

        Raises:
            LeaseLostError: another holder took it over.
            LogError: the database cannot be written now.
        """
        with _writing(self._engine) as connection:
            self.check(connection)
            expires = database_clock(connection) + _SECONDS
            connection.execute(sa.update(leases).where(leases.c.name == _key(self.name)).values(expires=expires))

    def renew_until(self, stop: threading.Event) -> None:
        """Renew again and again until told to stop, or until another holder has the lease."""
        while not stop.wait(_SECONDS / 4):
            try:
                self.renew()
            except LeaseLostError as error:
                logger.warning("%s", error)
                return
            except Exception as error:
                # If the lease runs out meanwhile, `check` finds that when the holder records what it did.
                logger.warning("The lease %s could not be renewed, trying again: %s", self.name, error)

    def release(self) -> None:
        """Give the lease back; a lost lease or a database that cannot be written is logged, and not an error."""
        mine = (leases.c.name == _key(self.name)) & (leases.c.token == self.token)
        try:
            with _writing(self._engine) as connection:
                connection.execute(sa.update(leases).where(mine).values(owner="", place="", expires=0.0))
        except HinsError as error:
            logger.warning("The lease %s could not be given back and will run out: %s", self.name, error)


def _key(name: str) -> str:
    """Return the name as it is stored: an agent's key may be a long path."""
    return hashlib.sha256(name.encode()).hexdigest()


@contextlib.contextmanager
def _writing(engine: sa.Engine) -> Iterator[sa.Connection]:
    with database_errors(engine.url), engine.begin() as connection:
        # SQLite transactions hold the write lock from their start.
        if connection.dialect.name == "postgresql":
            connection.execute(sa.text("LOCK TABLE leases IN SHARE ROW EXCLUSIVE MODE"))
        yield connection


def _place(lock: TextIO) -> str:
    """Return what identifies a locked file: the host, and a random number that was written into it when it was made.

    Two files of the same path on two hosts, or in two containers, differ in it.
    """
    text = ""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        lock.seek(0)
        text = lock.read().strip()
    if not text:
        text = uuid.uuid4().hex
        # On a full disk it is not written: after a kill, no process can recognise the file, and the lease must run out.
        with contextlib.suppress(OSError):
            os.write(lock.fileno(), text.encode())
    return f"{socket.gethostname()} {text}"
