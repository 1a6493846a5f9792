"""Many clients at once in one thread, each with a connection of its own that stays open."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Answer", "Connection", "Measured", "measure"]

_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A response: its status, its headers with lower-case names, and what its JSON says."""

    status: int
    headers: dict[str, str]
    body: Any


class Connection:
    """One connection of HTTP/1.1. It does as little as can be done, so that the server is what is measured."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def post(self, path: str, body: dict[str, Any]) -> Answer:
        """Send JSON and return the response.

        Raises:
            OSError, TimeoutError, asyncio.IncompleteReadError: there is none.
        """
        if self._reader is None or self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port, limit=2**24)
        content = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        self._writer.write(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
        return await asyncio.wait_for(_read(self._reader), _TIMEOUT)

    async def close(self) -> None:
        """Close it; the next request opens another one."""
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None


async def _read(reader: asyncio.StreamReader) -> Answer:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)}
    content = await reader.readexactly(int(headers["content-length"]))
    return Answer(int(lines[0].split()[1]), headers, json.loads(content))


@dataclass(slots=True)
class Measured:
    """What clients saw: seconds of each answered request, how many failed, and how long all of it took."""

    seconds: list[float] = field(default_factory=list)
    failed: int = 0
    whole: float = 0.0

    @property
    def per_second(self) -> float:
        """Requests that were answered in a second."""
        return len(self.seconds) / self.whole if self.whole else 0.0


def measure(port: int, model: str, clients: int, seconds: float, text: Callable[[], str]) -> Measured:
    """Let clients ask one text after another for some seconds.

    Args:
        port: of the server.
        model: the model's id.
        clients: at once.
        seconds: how long; requests that have begun are waited for.
        text: gives the next text, no two alike.
    """
    found = Measured()

    async def client(end: float) -> None:
        connection = Connection(port)
        while time.perf_counter() < end:
            started = time.perf_counter()
            try:
                answer = await connection.post("/v1/embeddings", {"model": model, "input": [text()]})
                if answer.status != 200:
                    found.failed += 1
                    continue
                found.seconds.append(time.perf_counter() - started)
            except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError):
                found.failed += 1
                await connection.close()
        await connection.close()

    async def all_of_them() -> None:
        started = time.perf_counter()
        await asyncio.gather(*(client(started + seconds) for _ in range(clients)))
        found.whole = time.perf_counter() - started

    asyncio.run(all_of_them())
    return found
