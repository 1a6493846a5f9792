"""The vectors of one encoder by text, beside MemoryOS's files: built before a swap, kept for a rollback."""

from __future__ import annotations

import json
import re
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hins_adapter_memoryos.files import Kind, side_folder
from hins_memory.common.files import private_folder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["VectorCache"]

_SCHEMA = "create table if not exists vectors (kind text, id text, vector blob, primary key (kind, id)) without rowid"
# As JSON, because the number of parameters of a statement is limited.
_AMONG = "kind = ? and id in (select value from json_each(?))"


class VectorCache:
    """Vectors of one space in a SQLite file; safe with several threads and processes, and with kill -9.

    The file is created with the first vector and removed with the last.

    Args:
        root: the data_storage_path.
        space: the space, named after the encoder version that made it; "" for MemoryOS's own encoder.
    """

    def __init__(self, root: Path, space: str) -> None:
        name = re.sub(r"[^A-Za-z0-9.@-]+", "_", space) or "own"
        self.path = side_folder(root) / f"vectors-{name}.db"
        self._lock = threading.RLock()

    def known(self, kind: Kind, ids: Iterable[str]) -> set[str]:
        """Return those of the ids that have a vector."""
        return {row[0] for row in self._rows("id", kind, ids)}

    def get(self, kind: Kind, ids: Iterable[str]) -> dict[str, NDArray[np.float32]]:
        """Return the vectors by id, each of shape (dim,); missing ids are left out."""
        import numpy as np

        return {id_: np.frombuffer(blob, dtype=np.float32) for id_, blob in self._rows("id, vector", kind, ids)}

    def put(self, kind: Kind, vectors: Mapping[str, NDArray[np.float32]]) -> None:
        """Keep vectors by id, each of shape (dim,), in one transaction."""
        rows = [(kind, id_, vector.tobytes()) for id_, vector in vectors.items()]
        if rows:
            private_folder(self.path.parent)
            with self._transaction() as connection:
                connection.executemany("insert or replace into vectors values (?, ?, ?)", rows)

    def delete(self, kind: Kind, ids: Iterable[str]) -> None:
        """Forget vectors; ids that do not exist are ignored."""
        with self._lock:
            if not self.path.is_file():
                return
            with self._transaction() as connection:
                connection.execute(f"delete from vectors where {_AMONG}", (kind, json.dumps(list(ids))))

    def drop(self, kind: Kind) -> None:
        """Forget every vector of a kind; if none is left, the file is removed."""
        with self._lock:
            if not self.path.is_file():
                return
            with self._transaction() as connection:
                connection.execute("delete from vectors where kind = ?", (kind,))
                is_empty = connection.execute("select 1 from vectors limit 1").fetchone() is None
            if is_empty:
                self.path.unlink(missing_ok=True)

    def _rows(self, columns: str, kind: Kind, ids: Iterable[str]) -> list[Any]:
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
