"""A real server of a project with tiny encoders."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hins_memory.config import Settings

pytest.importorskip("fastapi", reason="needs the extra serve")

Client = Any
MakeClient = Callable[..., Client]


@pytest.fixture
def tiny_base(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the tiny encoder what the projects of these tests start from."""
    monkeypatch.setenv("HINS_BASE", str(tiny_folder))
    monkeypatch.delenv("HINS_API_KEY", raising=False)


@pytest.fixture
def client(settings: Settings, tiny_base: None) -> Iterator[MakeClient]:
    """Makes test clients of the project's application, which runs until the end of the test."""
    from fastapi.testclient import TestClient

    from hins_memory.server.app import create_app
    from hins_memory.server.settings import ServeSettings

    with contextlib.ExitStack() as stack:

        def make(**options: Any) -> Client:
            app = create_app(settings, ServeSettings(**options))
            return stack.enter_context(TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False))

        yield make


@pytest.fixture
def running(settings: Settings, tiny_base: None) -> Iterator[Callable[..., str]]:
    """Runs real servers on loopback until the end of the test; returns their URLs."""
    import uvicorn

    from hins_memory.server.app import create_app
    from hins_memory.server.settings import ServeSettings

    with contextlib.ExitStack() as stack:

        def run(**options: Any) -> str:
            app = create_app(settings, ServeSettings(**options))
            listening = socket.create_server(("127.0.0.1", 0))
            config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=5)
            server = uvicorn.Server(config)
            thread = threading.Thread(target=server.run, args=([listening],))
            thread.start()

            def stop() -> None:
                server.should_exit = True
                thread.join()

            stack.callback(stop)
            while not server.started:
                assert thread.is_alive()
                time.sleep(0.01)
            return f"http://127.0.0.1:{listening.getsockname()[1]}"

        yield run
