"""A tiny agent framework, for the example: notes in SQLite, searched by cosine. It knows nothing of hins-memory."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

Row = tuple[str, str, Any]


class Table:
    """Notes with their vectors: rows of (id, text, vector)."""

    def __init__(self, db: sqlite3.Connection, name: str) -> None:
        self.db = db
        self.name = name
        db.execute(f'CREATE TABLE IF NOT EXISTS "{name}" (id TEXT PRIMARY KEY, text TEXT, vector BLOB)')

    def ids(self) -> list[str]:
        """Return the ids of all rows."""
        return [row[0] for row in self.db.execute(f'SELECT id FROM "{self.name}"')]

    def rows(self, ids: Sequence[str]) -> list[Row]:
        """Return the rows of those ids that exist."""
        marks = ",".join("?" * len(ids))
        found = self.db.execute(f'SELECT * FROM "{self.name}" WHERE id IN ({marks})', list(ids)).fetchall()
        return [(note, text, np.frombuffer(vector, dtype=np.float32)) for note, text, vector in found]

    def put(self, rows: Iterable[Row]) -> None:
        """Write rows; those of a known id are replaced."""
        values = [(note, text, vector.tobytes()) for note, text, vector in rows]
        self.db.executemany(f'INSERT OR REPLACE INTO "{self.name}" VALUES (?, ?, ?)', values)

    def delete(self, ids: Iterable[str]) -> None:
        """Delete rows."""
        self.db.executemany(f'DELETE FROM "{self.name}" WHERE id = ?', [(note,) for note in ids])

    def drop(self) -> None:
        """Delete the table."""
        self.db.execute(f'DROP TABLE "{self.name}"')

    def nearest(self, vector: Any, limit: int) -> list[tuple[str, str, float]]:
        """Return (id, text, cosine) of the rows that are nearest to a vector, best first."""
        scored = [(note, text, float(stored @ vector)) for note, text, stored in self.rows(self.ids())]
        return sorted(scored, key=lambda row: row[2], reverse=True)[:limit]


class Notebook:
    """Notes of one person.

    Args:
        path: the SQLite file.
        owner: whose notes they are.
        embed: texts -> unit vectors, an array of shape (n, dim).
    """

    def __init__(self, path: str, owner: str, embed: Callable[[Sequence[str]], Any]) -> None:
        self.path = path
        self.owner = owner
        self.embed = embed
        self.db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self.notes = Table(self.db, "notes")

    def add(self, text: str, page: str = "") -> str:
        """Keep a note, on a page of its own kind if one is named, and return its id."""
        note = uuid.uuid4().hex
        self.notes.put([(note, text, self.embed([text])[0])])
        return note

    def search(self, query: str, limit: int = 5) -> list[tuple[str, str, float]]:
        """Return (id, text, cosine) of the nearest notes, best first."""
        return self.notes.nearest(self.embed([query])[0], limit)
