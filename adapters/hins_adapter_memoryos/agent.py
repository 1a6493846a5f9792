"""A MemoryOS store whose encoder can be swapped while it is used: the `Agent` protocol for MemoryOS."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from hins_adapter_memoryos.encoders import FrameworkEncoder
from hins_adapter_memoryos.files import MemoryosFiles
from hins_memory.config import Settings
from hins_memory.registry.loader import EncoderSource
from hins_memory.registry.registry import Registry
from hins_memory.sdk.agents import AgentTable
from hins_memory.sdk.in_place_agent import InPlaceAgent, LoadedVectors

__all__ = ["MemoryosAgent", "open_agent"]


class MemoryosAgent(InPlaceAgent):
    """One data_storage_path, shared by every attached Memoryos of this process that works on it."""

    name = "memoryos"
    #: MemoryOS's thresholds: results below 0.1 are cut, segments are merged from 0.6.
    score_thresholds = (0.1, 0.6)

    def __init__(self, root: Path, encoders: EncoderSource, own: FrameworkEncoder) -> None:
        super().__init__(f"memoryos:{root}", encoders, MemoryosFiles(root), own)
        self._cache_clearers: list[Callable[[], None]] = []

    def join(self, parts: Iterable[LoadedVectors], clear_cache: Callable[[], None] | None = None) -> None:
        """Register mid- and long-term memories that were just loaded, and give them the vectors that serve.

        Args:
            parts: the parts; known ones are brought up to date.
            clear_cache: empties MemoryOS's own cache of embeddings.
        """
        with self._lock:
            if clear_cache is not None and clear_cache not in self._cache_clearers:
                self._cache_clearers.append(clear_cache)
            super().join(parts)

    def converted(self) -> None:
        """Empty MemoryOS's caches of embeddings, which know nothing of encoders."""
        for clear in self._cache_clearers:
            clear()


_AGENTS: AgentTable[MemoryosAgent] = AgentTable()


def open_agent(root: Path, settings: Settings, own: FrameworkEncoder, model: str | Path | None) -> MemoryosAgent:
    """Return this process's agent for a store, serving with what the registry says.

    Args:
        root: the data_storage_path.
        settings: the project.
        own: MemoryOS's own encoder.
        model: a sentence-transformers folder or name to start from.

    Raises:
        AgentError: the encoder that is recorded cannot be loaded.
    """

    def make() -> MemoryosAgent:
        return MemoryosAgent(root, EncoderSource(Registry(settings), model), own)

    agent = _AGENTS.get_or_open((settings.database_url, str(root)), make)
    if model is not None:
        agent.encoders.model = model
    agent.serve_live()
    return agent
