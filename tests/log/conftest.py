"""A database per test: SQLite always, PostgreSQL too where the packages pgserver and psycopg are installed."""

from __future__ import annotations

import importlib.util
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from hins_memory.log.database import open_database

_numbers = itertools.count()
_has_postgresql = all(importlib.util.find_spec(name) for name in ("pgserver", "psycopg"))


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    import pgserver

    # Not under tmp_path: the server runs as a user of its own where the tests run as root.
    with tempfile.TemporaryDirectory(prefix="hins-pg-") as folder:
        server = pgserver.get_server(Path(folder), cleanup_mode="stop")
        yield server.get_uri()
        server.cleanup()


@pytest.fixture(
    params=[
        "sqlite",
        pytest.param("postgresql", marks=pytest.mark.skipif(not _has_postgresql, reason="needs pgserver and psycopg")),
    ]
)
def log_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'project' / 'log.db'}"
    server = sa.make_url(request.getfixturevalue("postgresql_server")).set(drivername="postgresql+psycopg")
    name = f"log{next(_numbers)}"
    admin = sa.create_engine(server, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    admin.dispose()
    return server.set(database=name).render_as_string(hide_password=False)


@pytest.fixture
def engine(log_url: str) -> Iterator[sa.Engine]:
    engine = open_database(log_url)
    yield engine
    engine.dispose()
