"""Processes that drive a cluster and are killed in the middle."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

__all__ = ["dying_when", "mine_until_a_shard_is_there", "swap_until_a_batch_is_there"]


def mine_until_a_shard_is_there(channel: Any, project: str, address: str, path: Path) -> None:
    """Run ``hins mine`` on a cluster, and be killed before the first shard that it has made is taken in."""
    from hins_memory.cli import app
    from hins_memory.mining.storage.evidence import EvidenceStore

    EvidenceStore.adopt = _die  # type: ignore[assignment, method-assign]
    app(["--project", project, "mine", "--ray", address, "--output", str(path)])


def swap_until_a_batch_is_there(channel: Any, project: str, loop: Any, store: Any, version: str) -> None:
    """Swap a Mem0 by a cluster, 100 memories at a time, and be killed when the first of them are written."""
    from hins_memory import Memory
    from hins_memory.config import Settings
    from hins_memory.loop.shards import spread_encoder
    from hins_memory.plugins.manager import agent_of
    from hins_memory.registry.loader import EncoderSource
    from hins_memory.registry.registry import Registry
    from hins_memory.swapping import swap_agent

    settings = Settings(project=project)
    memory, registry = Memory({"vector_store": store}, settings=settings), Registry(settings)
    encoder = spread_encoder(settings, loop, EncoderSource(registry).by_version(version))
    swap_agent(agent_of(memory), version, encoder, registry, batch_size=100, progress=_die)


def _die(*_: object) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


@contextlib.contextmanager
def dying_when(happened: Callable[[], bool]) -> Iterator[None]:
    """Kill this process in the middle of the block, as soon as something has happened."""

    def watch() -> None:
        while not happened():
            time.sleep(0.05)
        _die()

    threading.Thread(target=watch, daemon=True).start()
    yield
