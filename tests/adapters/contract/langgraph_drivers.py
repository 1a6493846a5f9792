"""How the contract suite uses LangGraph's stores."""

from __future__ import annotations

from typing import Any

from hins_adapter_langgraph.plugin import plugin as langgraph_plugin

from hins_memory.testing import AdapterDriver, Found, Place


def index_of(place: Place) -> dict[str, Any]:
    """An index by an encoder that hins-memory knows nothing of, as a user would give it."""
    from langchain_core.embeddings import Embeddings

    from hins_memory.registry.loader import shared_encoder

    class Own(Embeddings):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return shared_encoder(place.base).encode(texts).tolist()

        def embed_query(self, text: str) -> list[float]:
            return self.embed_documents([text])[0]

    # SqliteStore names the fields otherwise.
    return {"dims": 32, "embed": Own(), "fields": ["text"], "text_fields": ["text"]}


class LangGraphDriver(AdapterDriver):
    """A `SqliteStore` on a file, and an `AsyncSqliteStore` on it."""

    plugin = langgraph_plugin
    users = ("ann", "7", "ann/bob", "user=ann&tenant=b", "a%2Fb", "李🍵", "None", " ")
    shared = True

    def _connect(self, place: Place) -> Any:
        import pysqlite3

        place.folder.mkdir(parents=True, exist_ok=True)
        file = str(place.folder / "store.db")
        return pysqlite3.connect(file, check_same_thread=False, isolation_level=None, timeout=30)

    def make(self, place: Place) -> Any:
        from langgraph.store.sqlite import SqliteStore

        store = SqliteStore(self._connect(place), index=index_of(place))
        store.setup()
        return store

    def _namespace(self, user: Any) -> tuple[str, ...]:
        return ("memories", user)

    def add(self, memory: Any, text: str, user: Any) -> str:
        from hins_adapter_langgraph import HinsStore

        memory.put(self._namespace(user), text, {"text": text})
        return HinsStore.memory_id(self._namespace(user), text)

    def search(self, memory: Any, query: str, user: Any, limit: int) -> Found:
        from hins_adapter_langgraph import HinsStore

        found = memory.search(self._namespace(user), query=query, limit=limit)
        return [(HinsStore.memory_id(item.namespace, item.key), item.value["text"]) for item in found]

    def update(self, memory: Any, id_: str, text: str, user: Any) -> None:
        from hins_adapter_langgraph.naming import place_of

        memory.put(*place_of(id_), {"text": text})

    def delete(self, memory: Any, id_: str, user: Any) -> None:
        from hins_adapter_langgraph.naming import place_of

        memory.delete(*place_of(id_))

    def close(self, memory: Any) -> None:
        memory.close()
        connection = memory.inner.conn
        if hasattr(connection, "stop"):
            connection.stop()
        else:
            connection.close()

    async def make_async(self, place: Place) -> Any:
        import aiosqlite
        from langgraph.store.sqlite.aio import AsyncSqliteStore

        connection = aiosqlite.Connection(lambda: self._connect(place), iter_chunk_size=64)
        store = AsyncSqliteStore(await connection, index=index_of(place))
        await store.setup()
        return store

    async def add_async(self, memory: Any, text: str, user: Any) -> str:
        await memory.aput(self._namespace(user), text, {"text": text})
        return str(memory.memory_id(self._namespace(user), text))

    async def search_async(self, memory: Any, query: str, user: Any, limit: int) -> Found:
        found = await memory.asearch(self._namespace(user), query=query, limit=limit)
        return [(memory.memory_id(item.namespace, item.key), item.value["text"]) for item in found]


class InMemoryDriver(LangGraphDriver):
    """An `InMemoryStore`, of this process and its time."""

    name = "langgraph-memory"
    shared = False
    lasting = False

    def make(self, place: Place) -> Any:
        from langgraph.store.memory import InMemoryStore

        return InMemoryStore(index=index_of(place))

    async def make_async(self, place: Place) -> Any:
        return self.make(place)

    def close(self, memory: Any) -> None:
        memory.close()


class PostgresDriver(LangGraphDriver):
    """A `PostgresStore`; the database is named in a file of the store's folder."""

    name = "langgraph-postgres"

    def make(self, place: Place) -> Any:
        from langgraph.store.postgres import PostgresStore
        from psycopg import Connection
        from psycopg.rows import dict_row

        url = (place.folder / "url").read_text(encoding="utf-8")
        connection = Connection.connect(url, autocommit=True, prepare_threshold=0, row_factory=dict_row)
        store = PostgresStore(connection, index=index_of(place))
        store.setup()
        return store

    make_async = AdapterDriver.make_async
