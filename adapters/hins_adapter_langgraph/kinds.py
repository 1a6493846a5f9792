"""What differs between LangGraph's stores: what identifies one, and where vectors of another encoder go.

Such vectors are in a store of the same kind beside the one that is wrapped: another `InMemoryStore`, another SQLite
file, or another schema of the same PostgreSQL database, whose vector column has a length of its own.
"""

from __future__ import annotations

import json
import queue
import sys
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hins_adapter_langgraph.embedding import HinsEmbeddings
from hins_adapter_langgraph.naming import item_id, place_of
from hins_memory.errors import AgentError
from hins_memory.sdk import address_in, name_in_process

__all__ = ["Kind", "kind_of"]

#: id -> path -> vector
Vectors = dict[str, dict[str, list[float]]]
# How many items are named in one statement.
_AT_ONCE = 100
_beside: weakref.WeakKeyDictionary[Any, dict[str, Any]] = weakref.WeakKeyDictionary()


class Kind(ABC):
    """How stores of one kind are opened and read; of a store that is not known, nothing but what every store can do.

    Args:
        store: the one that is wrapped.
    """

    #: whether several processes can have it open
    shared = False

    def __init__(self, store: Any) -> None:
        self.store = store

    @property
    def name(self) -> str:
        """What identifies the store in every process, without secrets; of one in memory, in this process."""
        return f"langgraph:{name_in_process(self.store)}"

    @abstractmethod
    def open(self, suffix: str, embeddings: HinsEmbeddings) -> Any:
        """Open the store beside that a version uses, creating it if it is missing."""

    @abstractmethod
    def drop(self, suffix: str) -> None:
        """Delete the store beside, with everything in it."""

    @abstractmethod
    def vectors(self, suffix: str, ids: Sequence[str] | None) -> Vectors:
        """Return the stored vectors of items (all for None; then they may be empty), by id and path.

        Args:
            suffix: of a store beside; "" for the one that is wrapped.
            ids: of items; those without a vector are left out.
        """

    def index(self, embeddings: HinsEmbeddings) -> dict[str, Any]:
        """Return the settings of an index that is as the wrapped store's, but for the encoder."""
        config = {name: value for name, value in self.store.index_config.items() if not name.startswith("__")}
        return {**config, "dims": embeddings.dims, "embed": embeddings}


class _Refused:
    """In the place of a store that cannot be made; nothing is in it, so that a swap that was refused can be cleared."""

    def __init__(self, kind: str, embeddings: HinsEmbeddings) -> None:
        self.embeddings = embeddings
        self._kind = kind

    def batch(self, ops: Iterable[Any]) -> list[Any]:
        """Do nothing for no operations.

        Raises:
            AgentError: there are some.
        """
        if list(ops):
            raise AgentError(
                f"Stores of the class {self._kind} cannot be re-embedded: other vectors have no place.",
                "Use InMemoryStore, SqliteStore on a file or PostgresStore, or train with the mode tower.",
            )
        return []


class UnknownKind(Kind):
    """A store of another package: recorded, and served by another encoder of queries, but not by other vectors."""

    def open(self, suffix: str, embeddings: HinsEmbeddings) -> Any:
        """Return what refuses to be written to."""
        return _Refused(type(self.store).__name__, embeddings)

    def drop(self, suffix: str) -> None:
        """Do nothing: there is none."""

    def vectors(self, suffix: str, ids: Sequence[str] | None) -> Vectors:
        """Return the items that a search without a query lists, without their vectors."""
        if suffix:
            return {}
        if ids is not None:
            return {id_: {} for id_ in ids}
        found: Vectors = {}
        while items := self.store.search((), limit=_AT_ONCE, offset=len(found)):
            known = len(found)
            found |= {item_id(item.namespace, item.key): {} for item in items}
            if len(found) == known:
                break
        return found


class MemoryKind(Kind):
    """`InMemoryStore`: the stores beside live as long as it does."""

    def open(self, suffix: str, embeddings: HinsEmbeddings) -> Any:
        """Open the store beside."""
        stores = _beside.setdefault(self.store, {})
        if suffix not in stores:
            stores[suffix] = type(self.store)(index=self.index(embeddings))
        return stores[suffix]

    def drop(self, suffix: str) -> None:
        """Forget the store beside."""
        _beside.get(self.store, {}).pop(suffix, None)

    def vectors(self, suffix: str, ids: Sequence[str] | None) -> Vectors:
        """Read the vectors of the store."""
        store = _beside[self.store][suffix] if suffix else self.store
        if ids is None:
            # A copy, because other threads may put meanwhile.
            spaces = list(store._data.items())
            places = [(namespace, key) for namespace, items in spaces for key in list(items)]
        else:
            places = [place_of(id_) for id_ in ids]
        found = {place: dict(store._vectors.get(place[0], {}).get(place[1], {})) for place in places}
        return {item_id(*place): vectors for place, vectors in found.items() if vectors}


class SqlKind(Kind):
    """A store in a database: its vectors are read through a connection of our own, also where it has an async one."""

    shared = True
    mark = "?"

    def __init__(self, store: Any) -> None:
        super().__init__(store)
        self._open: dict[str, Any] = {}
        self._lock = threading.Lock()

    @contextmanager
    @abstractmethod
    def connection(self, suffix: str) -> Iterator[Any]:
        """Connect to the database that has the store, for reading."""

    @abstractmethod
    def new(self, suffix: str, embeddings: HinsEmbeddings) -> Any:
        """Make the store beside, set up."""

    def open(self, suffix: str, embeddings: HinsEmbeddings) -> Any:
        """Open the store beside, once."""
        with self._lock:
            if suffix not in self._open:
                self._open[suffix] = self.new(suffix, embeddings)
            return self._open[suffix]

    def _close(self, suffix: str) -> None:
        """Close the store beside, if it is open."""
        with self._lock:
            if (store := self._open.pop(suffix, None)) is not None:
                store.conn.close()

    def vectors(self, suffix: str, ids: Sequence[str] | None) -> Vectors:
        """Read the vectors of the store; all ids come without them."""
        found: Vectors = {}
        with self.connection(suffix) as connection:
            if connection.execute(self.table).fetchone()[0] is None:
                # LangGraph makes its tables when a store is used first, or set up.
                return {}
            if ids is None:
                rows = connection.execute("SELECT DISTINCT prefix, key FROM store_vectors").fetchall()
                return {item_id(row[0].split("."), row[1]): {} for row in rows}
            for start in range(0, len(ids), _AT_ONCE):
                places = [place_of(id_) for id_ in ids[start : start + _AT_ONCE]]
                named = " OR ".join([f"(prefix = {self.mark} AND key = {self.mark})"] * len(places))
                statement = f"SELECT prefix, key, field_name, {self.column} FROM store_vectors WHERE {named}"
                values = [value for namespace, key in places for value in (".".join(namespace), key)]
                for prefix, key, path, vector in connection.execute(statement, values).fetchall() if places else ():
                    found.setdefault(item_id(prefix.split("."), key), {})[path] = self.read(vector)
        return found

    #: selects the name of the table of vectors, None where there is none
    table = "SELECT max(name) FROM sqlite_master WHERE name = 'store_vectors'"
    #: the vector as it is selected
    column = "embedding"

    def read(self, vector: Any) -> list[float]:
        """Return a vector that was selected."""
        import numpy as np

        return [float(value) for value in np.frombuffer(vector, dtype=np.float32)]


class SqliteKind(SqlKind):
    """`SqliteStore` and `AsyncSqliteStore` on a file: other vectors are in a file beside it."""

    def __init__(self, store: Any, driver: Any, path: str) -> None:
        super().__init__(store)
        self._driver = driver
        self._path = path

    @property
    def name(self) -> str:
        """The file."""
        return f"langgraph:sqlite:{self._path}"

    def _file(self, suffix: str) -> Path:
        return Path(f"{self._path}.hins{suffix}" if suffix else self._path)

    @contextmanager
    def connection(self, suffix: str) -> Iterator[Any]:
        """Connect to the file."""
        with closing(self._driver.connect(self._file(suffix), timeout=30)) as connection:
            yield connection

    def new(self, suffix: str, embeddings: HinsEmbeddings) -> Any:
        """Make the store in a file beside."""
        from langgraph.store.sqlite import SqliteStore

        connection = self._driver.connect(self._file(suffix), check_same_thread=False, isolation_level=None, timeout=30)
        connection.execute("PRAGMA journal_mode=WAL")
        store = SqliteStore(connection, index=self.index(embeddings))
        store.setup()
        return store

    def drop(self, suffix: str) -> None:
        """Delete the file beside."""
        self._close(suffix)
        for end in ("", "-wal", "-shm"):
            Path(f"{self._file(suffix)}{end}").unlink(missing_ok=True)


class PostgresKind(SqlKind):
    """`PostgresStore` and `AsyncPostgresStore`: other vectors are in a schema of their own."""

    mark = "%s"
    table = "SELECT to_regclass('store_vectors')::text"
    column = "embedding::text"

    def __init__(self, store: Any, conninfo: str) -> None:
        super().__init__(store)
        self._conninfo = conninfo
        with self.connection("") as connection:
            self._schema = str(connection.execute("SELECT current_schema()").fetchone()[0])

    @property
    def name(self) -> str:
        """The server, the database and the schema."""
        return f"langgraph:{address_in(SimpleNamespace(url=self._conninfo))}:{self._schema}"

    def _beside(self, suffix: str) -> str:
        """Return the schema of a store beside; PostgreSQL cuts names after 63 bytes."""
        schema = "" if self._schema == "public" else f"_{self._schema}"
        return f"hins{suffix}{schema}"[:63].replace('"', "_")

    def _search_path(self, suffix: str) -> str:
        # The type of vectors is in the schema in which its extension was created.
        return f'SET search_path TO "{self._beside(suffix)}", "{self._schema}", public'

    def _connect(self, suffix: str) -> Any:
        from psycopg import connect

        connection = connect(self._conninfo, autocommit=True, prepare_threshold=0)
        if suffix:
            # Not an option of the connection: poolers refuse these.
            connection.execute(self._search_path(suffix))
        return connection

    @contextmanager
    def connection(self, suffix: str) -> Iterator[Any]:
        """Connect to the database."""
        with closing(self._connect(suffix)) as connection:
            yield connection

    def new(self, suffix: str, embeddings: HinsEmbeddings) -> Any:
        """Make the store in a schema beside."""
        from langgraph.store.postgres import PostgresStore
        from psycopg.rows import dict_row

        connection = self._connect("")
        connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{self._beside(suffix)}"')
        connection.execute(self._search_path(suffix))
        connection.row_factory = dict_row
        store = PostgresStore(connection, index=self.index(embeddings))
        store.setup()
        return store

    def drop(self, suffix: str) -> None:
        """Delete the schema beside."""
        self._close(suffix)
        with self.connection("") as connection:
            connection.execute(f'DROP SCHEMA IF EXISTS "{self._beside(suffix)}" CASCADE')

    def read(self, vector: Any) -> list[float]:
        """Return a vector that was selected as text."""
        return [float(value) for value in json.loads(vector)]


def kind_of(store: Any) -> Kind:
    """Return what is known of a store by its class and its connection."""
    names = {f"{cls.__module__}.{cls.__name__}" for cls in type(store).__mro__}
    if "langgraph.store.memory.InMemoryStore" in names:
        return MemoryKind(store)
    if any(name.startswith("langgraph.store.sqlite") for name in names):
        connection = getattr(store.conn, "_conn", store.conn)
        driver = sys.modules[type(connection).__module__]
        path = _file_of(store)
        return SqliteKind(store, driver, str(Path(path).resolve())) if path else UnknownKind(store)
    if any(name.startswith("langgraph.store.postgres") for name in names):
        return PostgresKind(store, _conninfo(store.conn))
    return UnknownKind(store)


def _file_of(store: Any) -> str:
    """Return the file of a SQLite store; "" for one in memory."""

    def listed(connection: Any) -> str:
        return str(connection.execute("PRAGMA database_list").fetchone()[2])

    if not hasattr(store.conn, "_tx"):
        return listed(store.conn)
    # aiosqlite's connection lives in a thread of its own, whose queue this is; waiting for the event loop, in which
    # the store is most often wrapped, would wait for ever.
    found: queue.SimpleQueue[str] = queue.SimpleQueue()
    store.conn._tx.put_nowait((store.loop.create_future(), lambda: found.put(listed(store.conn._conn))))
    return found.get(timeout=30)


def _conninfo(connection: Any) -> str:
    from psycopg.conninfo import make_conninfo

    if (conninfo := getattr(connection, "conninfo", None)) is not None:
        return str(conninfo)
    return make_conninfo(**connection.info.get_parameters(), password=connection.info.password or None)
