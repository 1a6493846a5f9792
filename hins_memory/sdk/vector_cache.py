"""Vectors by text, beside a framework's own files: built before a swap, kept for a rollback."""

from __future__ import annotations

import json
import re
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hins_memory.common.files import private_folder
from hins_memory.sdk.vector_files import Entry, Vectors

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hins_memory.sdk.binding_agent import Binding

__all__ = ["VectorCache", "VectorCaches"]

_SCHEMA = "create table if not exists vectors (kind text, id text, vector blob, primary key (kind, id)) without rowid"
# As JSON, because the number of parameters of a statement is limited.
_AMONG = "kind = ? and id in (select value from json_each(?))"


class VectorCache:
    """Vectors of one space in a SQLite file; safe with several threads and processes, and with kill -9.

    The file is created with the first vector and removed with the last.

    Args:
        folder: where the file is.
        space: the space, named after the encoder version that made it; "" for the framework's own encoder.
    """

    def __init__(self, folder: Path, space: str) -> None:
        name = re.sub(r"[^A-Za-z0-9.@-]+", "_", space) or "own"
        self.path = folder / f"vectors-{name}.db"
        self._lock = threading.RLock()

    def known(self, kind: str, ids: Iterable[str]) -> set[str]:
        """Return those of the ids that have a vector."""
        return {row[0] for row in self._rows("id", kind, ids)}

    def get(self, kind: str, ids: Iterable[str]) -> dict[str, NDArray[np.float32]]:
        """Return the vectors by id, each of shape (dim,); missing ids are left out."""
        import numpy as np

        return {id_: np.frombuffer(blob, dtype=np.float32) for id_, blob in self._rows("id, vector", kind, ids)}

    def put(self, kind: str, vectors: Mapping[str, NDArray[np.float32]]) -> None:
        """Keep vectors by id, each of shape (dim,), in one transaction."""
        rows = [(kind, id_, vector.tobytes()) for id_, vector in vectors.items()]
        if rows:
            private_folder(self.path.parent)
            with self._transaction() as connection:
                connection.executemany("insert or replace into vectors values (?, ?, ?)", rows)

    def delete(self, kind: str, ids: Iterable[str]) -> None:
        """Forget vectors; ids that do not exist are ignored."""
        with self._lock:
            if not self.path.is_file():
                return
            with self._transaction() as connection:
                connection.execute(f"delete from vectors where {_AMONG}", (kind, json.dumps(list(ids))))

    def drop(self, kind: str) -> None:
        """Forget every vector of a kind; if none is left, the file is removed."""
        with self._lock:
            if not self.path.is_file():
                return
            with self._transaction() as connection:
                connection.execute("delete from vectors where kind = ?", (kind,))
                is_empty = connection.execute("select 1 from vectors limit 1").fetchone() is None
            if is_empty:
                self.path.unlink(missing_ok=True)

    def _rows(self, columns: str, kind: str, ids: Iterable[str]) -> list[Any]:
        statement = f"select {columns} from vectors where {_AMONG}"
        with self._lock:
            if not self.path.is_file():
                return []
            with self._transaction() as connection:
                return connection.execute(statement, (kind, json.dumps(list(ids)))).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Open the file, making it if it is missing; what is done is kept unless an error ends it."""
        with self._lock, closing(sqlite3.connect(self.path, timeout=30)) as connection, connection:
            connection.execute(_SCHEMA)
            yield connection


class VectorCaches:
    """The caches of a store, one for each space.

    Args:
        folder: where their files are.
        kinds: the kinds of the texts.
    """

    def __init__(self, folder: Path, kinds: Sequence[str]) -> None:
        self._folder = folder
        self._kinds = kinds
        self._caches: dict[str, VectorCache] = {}

    def of(self, space: str) -> VectorCache:
        """Return the cache of a space."""
        return self._caches.setdefault(space, VectorCache(self._folder, space))

    def keep(self, vectors: Vectors, space: str) -> None:
        """Keep vectors of a space."""
        for kind in self._kinds:
            self.of(space).put(kind, {id_: vector for (known, id_), vector in vectors.items() if known == kind})

    def missing(self, entries: Sequence[Entry], space: str) -> list[Entry]:
        """Return the entries whose texts have no vector of a space yet."""
        known: set[tuple[str, str]] = set()
        for kind in self._kinds:
            ids = {entry.id for entry in entries if entry.kind == kind}
            known |= {(kind, id_) for id_ in self.of(space).known(kind, ids)}
        return [entry for entry in entries if (entry.kind, entry.id) not in known]

    def vectors(self, entries: Sequence[Entry], binding: Binding, known: Vectors | None = None) -> Vectors:
        """Return each entry's vector of a binding by kind and id: known, or kept, or else encoded now.

        Raises:
            Exception: what the encoder or the disk raised.
        """
        vectors: Vectors = {}
        missing: dict[tuple[str, str], str] = {}
        for kind in self._kinds:
            texts = {entry.id: entry.text for entry in entries if entry.kind == kind}
            kept = self.of(binding.space).get(kind, texts)
            for id_, text in texts.items():
                vector = (known or {}).get((kind, id_), kept.get(id_))
                if vector is None:
                    missing[kind, id_] = text
                else:
                    vectors[kind, id_] = vector
        if missing:
            vectors |= zip(missing, binding.encoder.encode(list(missing.values()), role="document"), strict=True)
        return vectors
