"""What the miner's two SQLite files share: one process at a time, an identity that they are of, and JSON in ASCII."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hins_memory.errors import HinsError

__all__ = ["ascii_json", "open_finished_file", "open_work_file", "take_up", "work_file_errors"]

_JSON = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"))


def open_work_file(path: Path | None) -> sqlite3.Connection:
    """Open a file that only one process may have open; None means one in memory.

    Transactions are begun and ended by the caller, not by the driver.
    """
    db = sqlite3.connect(path or ":memory:", isolation_level=None, timeout=1.0)
    db.execute("PRAGMA locking_mode = EXCLUSIVE")
    return db


def open_finished_file(path: Path) -> sqlite3.Connection:
    """Open a file that nothing writes to any more, for reading, by any number of processes; no lock is taken."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True, isolation_level=None)


def take_up(db: sqlite3.Connection, schema: str, identity: str, tables: Sequence[str]) -> None:
    """Make what tables are missing; those of a file that was made under another identity, or by another version, go.

    Args:
        db: the file; ``identity`` and ``owners`` are among its tables.
        schema: the statements that make the tables.
        identity: what the content depends on, in one string, with the version of the schema.
        tables: all tables beside ``identity``.
    """
    has = db.execute("SELECT 1 FROM sqlite_master WHERE name = 'identity'").fetchone()
    same = has and db.execute("SELECT value FROM identity").fetchall() == [(identity,)]
    if not same:
        for table in ("identity", *tables):
            db.execute(f"DROP TABLE IF EXISTS {table}")
    for statement in schema.split(";"):
        db.execute(statement)
    if not same:
        db.execute("INSERT INTO identity VALUES (?)", (identity,))
    # Which owners there are now, and in what order, is said anew.
    db.execute("UPDATE owners SET position = NULL")


@contextmanager
def work_file_errors(path: Path | None, problem: str, hint: str) -> Iterator[None]:
    """Turn errors of the database or the disk into one that says what to do.

    Args:
        path: the file.
        problem: what failed, without the reason.
        hint: what to do.

    Raises:
        HinsError: with `problem` and the reason, or that another process has the file open.
    """
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        if "locked" in str(error):
            raise HinsError(
                f"Another process is mining with {path}.", "Wait for it, or mine into another file."
            ) from error
        raise HinsError(f"{problem}: {error}.", hint) from error


def ascii_json(value: Any) -> str:
    """Return JSON in ASCII, which holds any Python string."""
    return _JSON.encode(value)
