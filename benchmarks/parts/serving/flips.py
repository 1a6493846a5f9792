"""A mixed load on `hins serve` while its versions change: what fails, what gets another version's vectors, memory."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hins_memory.encoders.encoder import Encoder
from hins_memory.registry.registry import Registry
from parts.serving.clients import Answer, Connection
from parts.serving.project import shift_of_seed
from parts.serving.servers import Server
from parts.swapping.load import memory_text

__all__ = ["Flipped", "References", "run_load"]

# What rounding, and bfloat16 in larger batches, leave of the cosine 1; vectors of two versions are far below.
_SAME = 0.999
# A flip is followed within a second; a request that began later must get the new version.
_FOLLOWED = 2.0


@dataclass(frozen=True, slots=True)
class References:
    """What each version makes of each text: documents' vectors, of shape (texts, dim), and shifts of the towers."""

    documents: NDArray[np.float32]
    shifts: dict[str, NDArray[np.float32]]

    @classmethod
    def of(cls, encoder: Encoder, texts: int, seeds: dict[str, int]) -> References:
        """Embed texts by the documents' encoder; `seeds` are those of the towers, by version."""
        vectors = encoder.encode([memory_text(number) for number in range(texts)])
        return cls(vectors, {version: shift_of_seed(encoder.dim, seed) for version, seed in seeds.items()})

    def vector(self, text: int, version: str, role: str) -> NDArray[np.float32]:
        """Return the vector of a text."""
        found: NDArray[np.float32] = self.documents[text]
        if role == "query" and version in self.shifts:
            found = found + self.shifts[version]
            found = found / np.linalg.norm(found)
        return found


@dataclass(slots=True)
class Flipped:
    """What the load saw, and the server's memory in MiB, once a second."""

    requests: int = 0
    failed: int = 0
    wrong: int = 0
    late: int = 0
    flips: int = 0
    seconds: list[float] = field(default_factory=list)
    rss: list[float] = field(default_factory=list)

    def growth_mib(self) -> float:
        """Return by how much the median memory of the last quarter is over that of the second."""
        quarter = len(self.rss) // 4
        if not quarter:
            return 0.0
        return float(np.median(self.rss[-quarter:]) - np.median(self.rss[quarter : 2 * quarter]))


@dataclass(slots=True)
class _Flips:
    """Which version serves since when."""

    version: str = ""
    before: str = ""
    since: float = 0.0
    ended: bool = False


def run_load(
    server: Server, registry: Registry, references: References, clients: int, timing: tuple[float, float], seed: int
) -> Flipped:
    """Let clients ask for fixed versions and for the newest one, queries and documents, while the newest one changes.

    Args:
        server: `hins serve` of the registry's project.
        registry: the project's, in which versions are promoted.
        references: what is right.
        clients: at once.
        timing: how many seconds it goes on, and after how many the version changes.
        seed: of what is asked.
    """
    found, flips = Flipped(), _Flips()
    versions = list(references.shifts)
    _promote(registry, versions[0], flips)
    flipping = threading.Thread(target=_flip, args=(registry, versions, flips, timing, found))
    watching = threading.Thread(target=_watch, args=(server, flips, found))
    for thread in (flipping, watching):
        thread.start()
    try:
        asyncio.run(_clients(server, references, clients, time.monotonic() + timing[0], flips, found, seed))
    finally:
        flips.ended = True
        for thread in (flipping, watching):
            thread.join()
    return found


def _promote(registry: Registry, version: str, flips: _Flips) -> None:
    registry.promote(version)
    flips.version, flips.before, flips.since = version, flips.version, time.monotonic()


def _flip(
    registry: Registry, versions: Sequence[str], flips: _Flips, timing: tuple[float, float], found: Flipped
) -> None:
    while not flips.ended:
        if time.monotonic() - flips.since >= timing[1]:
            found.flips += 1
            _promote(registry, versions[found.flips % len(versions)], flips)
        time.sleep(0.05)


def _watch(server: Server, flips: _Flips, found: Flipped) -> None:
    while not flips.ended:
        found.rss.append(server.rss_mib())
        time.sleep(1)


async def _clients(
    server: Server, references: References, clients: int, end: float, flips: _Flips, found: Flipped, seed: int
) -> None:
    async def client(number: int) -> None:
        draw, connection = random.Random(1000 * seed + number), Connection(server.port)
        while time.monotonic() < end:
            text, role = draw.randrange(len(references.documents)), draw.choice(["query", "query", "document"])
            fixed = draw.choice([None, *references.shifts])
            model = f"hins-current@{server.model}" if fixed is None else f"hins-{fixed}"
            body = {"model": model, "input": [memory_text(text)], "input_type": role}
            started, serving = time.monotonic(), (flips.version, flips.since)
            found.requests += 1
            try:
                answer = await connection.post("/v1/embeddings", body)
            except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError):
                found.failed += 1
                await connection.close()
                continue
            if answer.status != 200:
                found.failed += 1
                continue
            found.seconds.append(time.monotonic() - started)
            version = answer.headers.get("x-hins-version", "")
            found.wrong += not _is_right(references, answer, text, fixed or version, role)
            newest = fixed is None and role == "query" and started - serving[1] > _FOLLOWED
            found.late += newest and version not in (serving[0], flips.version)
        await connection.close()

    await asyncio.gather(*(client(number) for number in range(clients)))


def _is_right(references: References, answer: Answer, text: int, version: str, role: str) -> bool:
    row: Any = answer.body["data"][0]["embedding"]
    return float(np.dot(np.array(row, dtype=np.float32), references.vector(text, version, role))) > _SAME
