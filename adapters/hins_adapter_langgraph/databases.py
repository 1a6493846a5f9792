"""The stores of LangGraph that are in databases: other vectors are in a file beside, or in a schema of their own.

They are read through connections of our own, because those of an async store belong to its event loop.
"""

from __future__ import annotations

import json
import queue
import sys
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from hins_adapter_langgraph.embedding import HinsEmbeddings
from hins_adapter_langgraph.index import MemoryIndex, StoreIndex
from hins_adapter_langgraph.naming import item_id, place_of
from hins_memory.common.files import file_identity
from hins_memory.sdk import UnlistedIndex, chunks_of, name_in_process, without_secrets

__all__ = ["open_index", "store_name"]

# How many items are named in one statement.
_AT_ONCE = 100


class SqlIndex(StoreIndex):
    """A store in a database."""

    #: what stands for a value in a statement
    mark = "?"
    #: selects the name of the table of vectors, None where there is none
    table = "SELECT max(name) FROM sqlite_master WHERE name = 'store_vectors'"
    #: the vector as it is selected
    column = "embedding"

    @abstractmethod
    def connect(self) -> Any:
        """Connect to the database that has the store, without transactions."""

    @abstractmethod
    def read(self, vector: Any) -> list[float]:
        """Return a vector that was selected."""

    def drop(self) -> None:
        """Close the store beside, if it is open."""
        super().drop()
        if self.suffix:
            self.store.conn.close()

    def ids(self) -> list[str]:
        """Return the ids of all items with a vector."""
        return [item_id(prefix.split("."), key) for prefix, key in self._select("DISTINCT prefix, key")]

    def by_path(self, ids: Sequence[str]) -> dict[str, dict[str, list[float]]]:
        """Return the vectors of those ids that have some."""
        found: dict[str, dict[str, list[float]]] = {}
        for some in chunks_of(ids, _AT_ONCE):
            values = [
                value for id_ in some for namespace, key in [place_of(id_)] for value in (".".join(namespace), key)
            ]
            where = " OR ".join([f"(prefix = {self.mark} AND key = {self.mark})"] * len(some))
            for prefix, key, path, vector in self._select(f"prefix, key, field_name, {self.column}", where, values):
                found.setdefault(item_id(prefix.split("."), key), {})[path] = self.read(vector)
        return found

    def _select(self, columns: str, where: str = "true", values: Sequence[str] = ()) -> list[Any]:
        with closing(self.connect()) as connection:
            # LangGraph makes its tables when a store is used first, or set up.
            if connection.execute(self.table).fetchone()[0] is None:
                return []
            rows = connection.execute(f"SELECT {columns} FROM store_vectors WHERE {where}", values)
            return list(rows.fetchall())


class SqliteIndex(SqlIndex):
    """A `SqliteStore` or `AsyncSqliteStore` on a file, which is its `path`; see `StoreIndex`."""

    def __init__(self, path: Path, wrapped: Any, suffix: str, embeddings: Any) -> None:
        connection = getattr(wrapped.conn, "_conn", wrapped.conn)
        self._driver: Any = sys.modules[type(connection).__module__]
        self._path = f"{path}.hins{suffix}" if suffix else str(path)
        super().__init__(f"langgraph:sqlite:{path}", wrapped, suffix, embeddings)

    def connect(self) -> Any:
        """Connect to the file."""
        return self._driver.connect(self._path, check_same_thread=False, isolation_level=None, timeout=30)

    def make(self, embeddings: HinsEmbeddings) -> Any:
        """Open the file beside."""
        from langgraph.store.sqlite import SqliteStore

        connection = self.connect()
        connection.execute("PRAGMA journal_mode=WAL")
        store = SqliteStore(connection, index=self.config(embeddings))
        store.setup()
        return store

    def identity(self) -> tuple[int, int] | None:
        """Return the device and the inode of the file."""
        return file_identity(self._path)

    def drop(self) -> None:
        """Delete the file beside."""
        super().drop()
        for end in ("", "-wal", "-shm") if self.suffix else ():
            Path(f"{self._path}{end}").unlink(missing_ok=True)

    def read(self, vector: Any) -> list[float]:
        """Return a vector from its bytes."""
        import numpy as np

        return [float(value) for value in np.frombuffer(vector, dtype=np.float32)]


class PostgresIndex(SqlIndex):
    """A `PostgresStore` or `AsyncPostgresStore`; see `StoreIndex`."""

    mark = "%s"
    table = "SELECT to_regclass('store_vectors')::text"
    column = "embedding::text"

    def __init__(self, wrapped: Any, suffix: str, embeddings: Any) -> None:
        self._conninfo = _conninfo(wrapped.conn)
        self._schemas: tuple[str, ...] = ()
        with closing(self.connect()) as connection:
            own = str(connection.execute("SELECT current_schema()").fetchone()[0])
        if suffix:
            # PostgreSQL cuts names after 63 bytes.
            beside = f"hins{suffix}{'' if own == 'public' else f'_{own}'}"[:63].replace('"', "_")
            # The type of vectors is in the schema in which its extension was created.
            self._schemas = (beside, own, "public")
        super().__init__(f"langgraph:{without_secrets(self._conninfo)}:{own}", wrapped, suffix, embeddings)

    def connect(self) -> Any:
        """Connect to the database."""
        from psycopg import connect

        connection = connect(self._conninfo, autocommit=True, prepare_threshold=0)
        if self._schemas:
            # Not an option of the connection: poolers refuse these.
            connection.execute("SET search_path TO " + ", ".join(f'"{schema}"' for schema in self._schemas))
        return connection

    def make(self, embeddings: HinsEmbeddings) -> Any:
        """Open the schema beside."""
        from langgraph.store.postgres import PostgresStore
        from psycopg.rows import dict_row

        connection = self.connect()
        connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{self._schemas[0]}"')
        connection.row_factory = dict_row
        store = PostgresStore(connection, index=self.config(embeddings))
        store.setup()
        return store

    def identity(self) -> int | None:
        """Return the number of the schema in the database."""
        with closing(self.connect()) as connection:
            found = connection.execute(
                "SELECT oid FROM pg_namespace WHERE nspname = %s", (self._schemas[0],)
            ).fetchone()
        return int(found[0]) if found else None

    def drop(self) -> None:
        """Delete the schema beside."""
        super().drop()
        if self.suffix:
            with closing(self.connect()) as connection:
                connection.execute(f'DROP SCHEMA IF EXISTS "{self._schemas[0]}" CASCADE')

    def read(self, vector: Any) -> list[float]:
        """Return a vector from its text."""
        return [float(value) for value in json.loads(vector)]


def open_index(store: Any, suffix: str = "", embeddings: HinsEmbeddings | None = None) -> Any:
    """Return the index of a store by its class, or that of the store beside it that ends with `suffix`."""
    names = " ".join(f"{cls.__module__}.{cls.__name__}" for cls in type(store).__mro__)
    if "langgraph.store.memory.InMemoryStore" in names:
        return MemoryIndex(f"langgraph:{name_in_process(store)}", store, suffix, embeddings)
    if "langgraph.store.sqlite" in names and (path := _file_of(store)):
        return SqliteIndex(Path(path).resolve(), store, suffix, embeddings)
    if "langgraph.store.postgres" in names:
        return PostgresIndex(store, suffix, embeddings)
    advice = "Use InMemoryStore, SqliteStore on a file or PostgresStore; or train with --mode tower."
    return UnlistedIndex(store, suffix, advice)


def store_name(store: Any) -> str:
    """Return what identifies a store in every process, without secrets; of one in memory, in this process."""
    index = open_index(store)
    return index.name if isinstance(index, SqlIndex) else f"langgraph:{name_in_process(store)}"


def _file_of(store: Any) -> str:
    """Return the file of a SQLite store; "" for one in memory."""
    found: queue.SimpleQueue[str] = queue.SimpleQueue()
    connection = getattr(store.conn, "_conn", store.conn)

    def look() -> None:
        found.put(str(connection.execute("PRAGMA database_list").fetchone()[2]))

    if connection is store.conn:
        look()
    else:
        # aiosqlite's connection lives in a thread of its own, whose queue this is; waiting for the event loop, in
        # which the store is most often wrapped, would wait for ever.
        store.conn._tx.put_nowait((store.loop.create_future(), look))
    return found.get(timeout=30)


def _conninfo(connection: Any) -> str:
    """Return how a connection or pool connects, with its password."""
    from psycopg.conninfo import make_conninfo

    if (conninfo := getattr(connection, "conninfo", None)) is not None:
        return str(conninfo)
    return make_conninfo(**connection.info.get_parameters(), password=connection.info.password or None)
