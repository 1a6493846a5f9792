"""Opens a project's database, creating or migrating it first: SQLite by default, PostgreSQL by URL."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url

from hins_memory.common.secrets import masked
from hins_memory.database.connections import LOCK_SECONDS, WAL_BYTES, create_file, shared_engine, sqlite_engine
from hins_memory.database.tables import metadata
from hins_memory.errors import LogError

if TYPE_CHECKING:
    from alembic.config import Config

__all__ = ["SCHEMA_REVISION", "database_errors", "open_database", "reading"]

#: The newest migration under migrations/versions; a database at this revision needs no migration.
SCHEMA_REVISION = "0007"

_MIGRATIONS = Path(__file__).parent / "migrations"
#: Any fixed number: it names the advisory lock that PostgreSQL holds while a migration runs.
_POSTGRESQL_LOCK = 0x68696E73
_READ_ONLY = "hins_read_only"
# Alembic keeps the running migration in module-wide state.
_migrating = threading.Lock()
_URL_HINT = "Use e.g. sqlite:////folder/log.db or postgresql://user:password@host/name in HINS_LOG_URL."

_HINTS = (
    ("full", "Free disk space and try again; nothing that was written before is lost."),
    ("locked", "Another process holds the database; end it or try again."),
    ("readonly", "Make the database file and its folder writable for this user."),
    ("unable to open", "Make the folder writable for this user, or set HINS_HOME or HINS_LOG_URL to another place."),
    ("not a database", "Move the file away, or set HINS_LOG_URL to another database."),
    ("malformed", "The file is damaged: restore it from a backup, or move it away to start a new log."),
    ("disk i/o", "Check the disk; what was written before is kept."),
    ("already exists", "The database holds other tables of the same names: set HINS_LOG_URL to a database of its own."),
)


def open_database(url: str) -> sa.Engine:
    """Open a project's database, creating it or bringing it to the newest schema first.

    Any number of processes and threads may do so at once. In a process, all calls for one database share an engine; a
    forked child has connections of its own. On SQLite (WAL mode) a transaction takes the write lock when it begins,
    so that a read followed by a write in one ``engine.begin()`` is safe between processes; what only reads should use
    `reading(engine)`, which never waits for a writer. A thread must not fork inside of a transaction: the child
    could not use the database.

    Args:
        url: SQLAlchemy URL, e.g. ``sqlite:////home/ann/.hins/default/log.db`` or ``postgresql://host/name``.

    Raises:
        LogError: the URL, the folder, the file, the server or the schema is not usable; says what to do.
    """
    parsed = _parse(url)
    if parsed.get_backend_name() == "sqlite":
        path = Path(str(parsed.database))
        _make_file(path)
        # Identified by the real path: a link to the file, or another spelling of its path, is the same database.
        engine = shared_engine(f"sqlite {os.path.realpath(path)}", lambda: _sqlite(parsed, path))
    else:
        engine = shared_engine(parsed.render_as_string(hide_password=False), lambda: _postgresql(parsed))
    with database_errors(parsed):
        _migrate(engine)
    return engine


def reading(engine: sa.Engine) -> sa.Engine:
    """Return a view of the engine whose transactions only read: one snapshot each, never waiting for a writer."""
    if engine.dialect.name == "sqlite":
        return engine.execution_options(**{_READ_ONLY: True})
    return engine.execution_options(isolation_level="REPEATABLE READ")


@contextlib.contextmanager
def database_errors(url: URL) -> Iterator[None]:
    """Turn the database's own errors into `LogError`, without any recorded content in the message."""
    try:
        yield
    except sa.exc.SQLAlchemyError as error:
        cause = str(getattr(error, "orig", None) or error).strip()
        hint = next(
            (hint for word, hint in _HINTS if word in cause.lower()), "See `hins status` and the database's log."
        )
        raise LogError(f"The interaction log {_masked_url(url)} failed: {masked(cause)}.", hint) from error


def _masked_url(url: URL) -> str:
    # A password may also stand in the query.
    return masked(url.render_as_string(hide_password=True))


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except sa.exc.ArgumentError as error:
        # The URL is not repeated: it may hold a password.
        raise LogError("The interaction log's URL cannot be parsed.", _URL_HINT) from error
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        name = parsed.database or ""
        if parsed.host or parsed.query or name in ("", ":memory:") or name.startswith("file:"):
            raise LogError(
                f"The interaction log {_masked_url(parsed)} is not a file.",
                f"What is kept in memory only is lost with the process. {_URL_HINT}",
            )
        # Absolute: connections that open later must not follow a change of the working directory.
        return parsed.set(drivername="sqlite", database=os.path.abspath(name))
    if backend != "postgresql":
        raise LogError(f"The interaction log cannot be kept in {backend}.", _URL_HINT)
    # Which driver a bare "postgresql" means differs between SQLAlchemy 2.0 and 2.1.
    return parsed.set(drivername="postgresql+psycopg") if parsed.drivername == "postgresql" else parsed


def _make_file(path: Path) -> None:
    """Create the folder and an empty file that only its owner may read: it will hold conversations."""
    try:
        create_file(path)
    except (OSError, sqlite3.Error) as error:
        raise LogError(
            f"The interaction log {path} cannot be opened: {getattr(error, 'strerror', None) or error}.",
            "Make the folder writable for this user, or set HINS_HOME or HINS_LOG_URL to another place.",
        ) from error


def _sqlite(url: URL, path: Path) -> sa.Engine:
    engine = sqlite_engine(url, str(path), _prepare_connection)
    sa.event.listen(engine, "begin", _begin)
    return engine


def _postgresql(url: URL) -> sa.Engine:
    # hide_parameters: an error message must not repeat what people said.
    try:
        return sa.create_engine(url, hide_parameters=True, pool_pre_ping=True, connect_args=_timeouts(url))
    except (ModuleNotFoundError, sa.exc.ArgumentError) as error:
        raise LogError(
            f"The interaction log {_masked_url(url)} cannot be opened: {masked(str(error))}.",
            'Check HINS_LOG_URL; PostgreSQL needs a driver: pip install "psycopg[binary]".',
        ) from error


def _timeouts(url: URL) -> dict[str, object]:
    """Return options that make a server that no longer answers an error within a minute, unless the URL has them."""
    if url.get_driver_name() not in ("psycopg", "psycopg2"):
        return {}
    defaults = {
        "connect_timeout": 10,
        "keepalives_idle": 20,
        "keepalives_interval": 10,
        "keepalives_count": 3,
        "tcp_user_timeout": 50_000,
    }
    return {name: value for name, value in defaults.items() if name not in url.query}


def _prepare_connection(connection: sqlite3.Connection) -> None:
    _use_wal(connection)
    # WAL with NORMAL loses nothing by kill -9; a power cut may lose the last commits, but damages nothing.
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("PRAGMA foreign_keys=ON")
    # `_Checkpoint` does it, when no transaction can write.
    connection.execute("PRAGMA wal_autocheckpoint=0")
    connection.execute(f"PRAGMA journal_size_limit={WAL_BYTES}")
    # What is deleted or overwritten is zeroed in the file, so that a purge leaves nothing to find.
    connection.execute("PRAGMA secure_delete=ON")


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch to WAL; SQLite answers "locked" at once, without waiting, while another process does the same."""
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _begin(connection: sa.Connection) -> None:
    reads = connection.get_execution_options().get(_READ_ONLY, False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def _revision(connection: sa.Connection) -> str | None:
    """Return the schema's revision, None for a database without one."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    table = sa.table("alembic_version", sa.column("version_num", sa.String))
    return connection.execute(sa.select(table.c.version_num)).scalar()


def _migrate(engine: sa.Engine) -> None:
    with reading(engine).connect() as connection:
        if _revision(connection) == SCHEMA_REVISION:
            return
    with _migrating, engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_POSTGRESQL_LOCK)))
        # Read again under the lock: another process may have migrated meanwhile.
        revision = _revision(connection)
        if revision is None:
            _create_tables(connection)
        elif revision != SCHEMA_REVISION:
            _upgrade(connection, revision)


def _create_tables(connection: sa.Connection) -> None:
    """Create all tables at the newest schema at once, without the second that importing Alembic takes.

    Events wait for it, and would be lost with a process that is killed meanwhile.
    """
    metadata.create_all(connection, checkfirst=False)
    version = sa.Table(
        "alembic_version",
        sa.MetaData(),
        sa.Column("version_num", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
    )
    version.create(connection)
    connection.execute(sa.insert(version).values(version_num=SCHEMA_REVISION))


def _upgrade(connection: sa.Connection, revision: str) -> None:
    # Imported here because an up-to-date database, the usual case, needs none of it.
    from alembic import command

    config = migration_config(connection)
    _check_known(config, revision, connection.engine.url)
    command.upgrade(config, "head")


def migration_config(connection: sa.Connection) -> Config:
    """Return Alembic's configuration for the packaged migrations, to run on an open connection."""
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    return config


def _check_known(config: Config, revision: str, url: URL) -> None:
    from alembic.script import ScriptDirectory

    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if revision not in known:
        raise LogError(
            f"The interaction log {_masked_url(url)} has the schema {revision}, which this version does not know.",
            "A newer hins-memory wrote it: upgrade with `pip install -U hins-memory`, or use another HINS_HOME.",
        )


def _renew_lock_in_child() -> None:
    global _migrating
    _migrating = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock_in_child)
