"""A log per test: SQLite always, PostgreSQL too where the packages pgserver and psycopg are installed."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from postgresql import postgresql_schema

from hins_memory.database.engine import open_database

_numbers = itertools.count()
_has_postgresql = all(importlib.util.find_spec(name) for name in ("pgserver", "psycopg"))


@pytest.fixture(
    params=[
        "sqlite",
        pytest.param("postgresql", marks=pytest.mark.skipif(not _has_postgresql, reason="needs pgserver and psycopg")),
    ]
)
def log_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'project' / 'log.db'}"
    return postgresql_schema(request.getfixturevalue("postgresql_server"), f"log{next(_numbers)}")


@pytest.fixture
def engine(log_url: str) -> Iterator[sa.Engine]:
    engine = open_database(log_url)
    yield engine
    engine.dispose()
