"""What the tests of the LangGraph adapter share; they run with the real langgraph, and are skipped without it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("langgraph", reason="needs the extra langgraph")

from hins_adapter_langgraph import HinsEmbeddings, HinsStore
from langgraph.store.memory import InMemoryStore

from hins_memory.config import Settings
from hins_memory.database.engine import open_database
from hins_memory.log.capture import flush_all
from hins_memory.log.reader import LogReader

PATTERN = ("memories", "{user}")


@pytest.fixture
def index(tiny_folder: Path) -> dict[str, Any]:
    """An index by the tiny encoder, as a user would give it to any store."""
    return {"dims": 32, "embed": HinsEmbeddings(tiny_folder), "fields": ["text"]}


@pytest.fixture
def store(index: dict[str, Any], settings: Settings) -> Iterator[HinsStore]:
    """An in-memory store that is recorded."""
    made = HinsStore(InMemoryStore(index=index), namespace=PATTERN, settings=settings)
    yield made
    made.close()


@pytest.fixture
def logs(settings: Settings) -> Any:
    """Returns what the log holds, by owner."""

    def read() -> dict[str, Any]:
        assert flush_all()
        return {
            log.memories[0].scope.owner.key if log.memories else log.retrievals[0].scope.owner.key: log
            for log in LogReader(open_database(settings.database_url)).scope_logs()
        }

    return read


@pytest.fixture
def postgresql_url(postgresql_server: str) -> Iterator[str]:
    """A database of the test's own, with pgvector."""
    import psycopg

    name = f"langgraph_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(postgresql_server, autocommit=True) as server:
        server.execute(f"CREATE DATABASE {name}")
    base, _, query = postgresql_server.partition("?")
    yield f"{base.rsplit('/', 1)[0]}/{name}?{query}"
    with psycopg.connect(postgresql_server, autocommit=True) as server:
        server.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
