"""Fixtures of the stores' suite: real servers, and one world for each store."""

from __future__ import annotations

import itertools
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy
from store_world import SERVERS, StoreWorld

from hins_memory.config import Settings

_numbers = itertools.count()


@pytest.fixture(scope="session")
def chroma_server() -> Iterator[int]:
    """The port of Chroma's own server on loopback."""
    pytest.importorskip("chromadb", reason="needs the package chromadb")
    program = shutil.which("chroma", path=str(Path(sys.executable).parent)) or shutil.which("chroma")
    if program is None:
        pytest.skip("the program chroma of the package chromadb is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    with tempfile.TemporaryDirectory(prefix="hins-chroma-") as folder:
        command = [program, "run", "--path", folder, "--host", "127.0.0.1", "--port", str(port)]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            _await_server(server, f"http://127.0.0.1:{port}/api/v2/heartbeat")
            yield port
        finally:
            server.kill()
            server.wait()


def _await_server(server: subprocess.Popen[bytes], url: str) -> None:
    until = time.monotonic() + 60
    while True:
        try:
            httpx.get(url).raise_for_status()
            return
        except httpx.HTTPError:
            assert server.poll() is None, "Chroma's server ended"
            assert time.monotonic() < until, "Chroma's server does not answer"
            time.sleep(0.1)


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
