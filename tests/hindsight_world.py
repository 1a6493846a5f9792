"""A real Hindsight on a PostgreSQL that HINS_TEST_HINDSIGHT names, without a language model and without a reranker."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from collections.abc import Coroutine
from functools import cache
from typing import Any

import pytest

os.environ.update(HINDSIGHT_API_LLM_PROVIDER="none", HINDSIGHT_API_RERANKER_PROVIDER="rrf")

__all__ = ["awaited", "close_engine", "database", "needs_database", "on_the_loop", "open_engine", "request"]


#: of modules that need a database, which Hindsight's own cannot be for tests that run as root
needs_database = pytest.mark.skipif(
    "HINS_TEST_HINDSIGHT" not in os.environ, reason="HINS_TEST_HINDSIGHT names no PostgreSQL with pgvector and pg_trgm"
)


@cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    return loop


def awaited(call: Coroutine[Any, Any, Any]) -> Any:
    """Return what a coroutine returns, in the loop of all engines."""
    return asyncio.run_coroutine_threadsafe(call, _loop()).result()


async def on_the_loop(call: Coroutine[Any, Any, Any]) -> Any:
    """Do the same from a coroutine of another loop."""
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call, _loop()))


def database(name: str) -> str:
    """Return the URL of a database of that name, which is made, with Hindsight's tables, where it is missing."""
    digest = hashlib.sha256(name.encode()).hexdigest()[:12]
    return str(awaited(_database(os.environ["HINS_TEST_HINDSIGHT"], f"hins_{digest}")))


async def _database(server: str, name: str) -> str:
    import asyncpg
    from hindsight_api.config import get_config
    from hindsight_api.migrations import run_migrations_for_schemas

    base, template = server.rpartition("/")[0], "hins_template"
    admin = await asyncpg.connect(server)
    try:
        known = {row["datname"] for row in await admin.fetch("SELECT datname FROM pg_database")}
        if template not in known:
            await admin.execute(f"CREATE DATABASE {template}")
            config = get_config()
            await asyncio.to_thread(
                run_migrations_for_schemas,
                f"{base}/{template}",
                ["public"],
                embedding_dimension=32,
                vector_extension=config.vector_extension,
                text_search_extension=config.text_search_extension,
            )
        if name not in known:
            await admin.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    finally:
        await admin.close()
    return f"{base}/{name}"


def open_engine(url: str, embeddings: Any, **options: Any) -> Any:
    """Return a `MemoryEngine` that is ready."""
    from hindsight_api import MemoryEngine
    from hindsight_api.engine.task_backend import SyncTaskBackend

    engine = MemoryEngine(
        db_url=url,
        embeddings=embeddings,
        task_backend=SyncTaskBackend(),
        pool_min_size=1,
        pool_max_size=8,
        run_migrations=False,
        **options,
    )
    awaited(engine.initialize())
    return engine


def close_engine(engine: Any) -> None:
    """Close it."""
    awaited(engine.close())


def request() -> Any:
    """Return the context of a request without a key."""
    from hindsight_api import RequestContext

    return RequestContext()
