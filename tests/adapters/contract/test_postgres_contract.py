"""A LangGraph store in PostgreSQL passes the contract suite; vectors of another length are in a schema of their own."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import child_process  # noqa: F401  # the processes of the suite import what those of other tests do
import pytest
from langgraph_drivers import PostgresDriver

from hins_memory.testing import AdapterContract, ContractWorld

pytestmark = pytest.mark.slow
pytest.importorskip("langgraph.store.postgres", reason="needs the extra langgraph")


class TestContract(AdapterContract):
    """The tests, each in a database of its own."""

    drivers = (PostgresDriver,)

    @pytest.fixture(autouse=True)
    def database(self, world: ContractWorld, postgresql_server: str) -> Iterator[None]:
        """Name a new database in the folder of the world's store."""
        import psycopg

        name = f"contract_{uuid.uuid4().hex[:12]}"
        with psycopg.connect(postgresql_server, autocommit=True) as server:
            server.execute(f"CREATE DATABASE {name}")
        base, _, query = postgresql_server.partition("?")
        folder = Path(world.place().folder)
        folder.mkdir(parents=True)
        (folder / "url").write_text(f"{base.rsplit('/', 1)[0]}/{name}?{query}", encoding="utf-8")
        yield
        world.close()
        with psycopg.connect(postgresql_server, autocommit=True) as server:
            server.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
