"""Finds out which encoder the vectors of a MemoryOS store are made by, and which one serves it."""

from __future__ import annotations

import re
import threading
import weakref
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from hins_adapter_memoryos.agent import MemoryosAgent
from hins_adapter_memoryos.encoders import OwnEncoder
from hins_adapter_memoryos.files import store_files
from hins_adapter_memoryos.index import file_entries
from hins_adapter_memoryos.part import Binding
from hins_memory.config import Settings
from hins_memory.errors import AgentError, ConfigError, SwapError
from hins_memory.registry.loader import EncoderSource

if TYPE_CHECKING:
    from hins_memory.encoders.encoder import Encoder

__all__ = ["choose_encoder", "open_agent", "record_own", "reembed_agent"]

# How many stored vectors are compared with re-encoded texts, and how well they have to agree.
_SAMPLE = 32
_SAMPLE_OF_FILE = 8
_MIN_COSINE = 0.999


_agents: weakref.WeakValueDictionary[tuple[str, str], MemoryosAgent] = weakref.WeakValueDictionary()
_agents_lock = threading.RLock()


def _shared_agent(database_url: str, root: Path, make: Callable[[], MemoryosAgent]) -> MemoryosAgent:
    """Return this process's agent for a store, made by `make` if there is none: so that a flip reaches all users."""
    name = (database_url, str(root))
    with _agents_lock:
        agent = _agents.get(name)
        if agent is None:
            agent = _agents[name] = make()
        return agent


def open_agent(root: Path, settings: Settings, own: OwnEncoder, model: str | Path | None) -> MemoryosAgent:
    """Return this process's agent for a store, serving with what the registry says.

    Args:
        root: the data_storage_path.
        settings: the project.
        own: MemoryOS's own encoder.
        model: a sentence-transformers folder or name to start from.

    Raises:
        AgentError: the encoder that is recorded cannot be loaded.
    """
    from hins_memory.registry.registry import Registry

    def make() -> MemoryosAgent:
        return MemoryosAgent(root, EncoderSource(Registry(settings), model), own)

    agent = _shared_agent(settings.database_url, root, make)
    if model is not None:
        agent.encoders.model = model
    live = agent.encoders.registry.live_index(agent.key)
    if live is not None and live.version:
        agent.follow(live.version, live.suffix)
    return agent


def choose_encoder(agent: MemoryosAgent, embedder: str | None, reembed: bool) -> Encoder | None:
    """Make a store serve with hins if it is asked for, and return the encoder it must be re-embedded with first.

    Args:
        agent: the store.
        embedder: ``hins``, ``stock``, or None for whatever serves.
        reembed: whether vectors of another encoder may be replaced.

    Raises:
        AgentError: the store holds vectors of another encoder and `reembed` is false.
        ConfigError: the embedder is not known.
    """
    if embedder not in ("hins", "stock", None):
        raise ConfigError(
            f"{embedder!r} is not an embedder.",
            'Use "hins" (the project\'s encoder), "stock" (the plain base) or None (MemoryOS\'s own).',
        )
    if embedder is None:
        return None
    if agent.encoder_version:
        if embedder == "stock" and agent.encoder_version != agent.encoders.stock().version:
            raise AgentError(
                f"{agent.key} is embedded by {agent.encoder_version!r}, not by the stock encoder.",
                'Open it with embedder="hins", or return to the stock encoder with `hins rollback`.',
            )
        return None
    encoder = agent.encoders.stock() if embedder == "stock" else agent.encoders.initial()
    # What MemoryOS stored with its default model is served as it is, whatever new stores begin with.
    for one in dict.fromkeys((encoder, agent.encoders.stock())):
        if _made_by(agent.root, one):
            agent.accept(_record(agent, one))
            return None
    if reembed:
        return encoder
    raise AgentError(
        f"{agent.key} holds vectors of another encoder; {encoder.version} cannot search them.",
        'Re-embed them with hins_memory.attach(memory, embedder="hins", reembed=True).',
    )


def reembed_agent(agent: MemoryosAgent, encoder: Encoder) -> None:
    """Swap a store from MemoryOS's own encoder to hins.

    Raises:
        SwapError: it did not finish; MemoryOS's own encoder serves as before.
    """
    from hins_memory.swapping.swap import swap_agent

    record_own(agent)
    swap_agent(agent, encoder.version, encoder, agent.encoders.registry)


def record_own(agent: MemoryosAgent) -> None:
    """Record that MemoryOS's own encoder serves a store, so that it can be swapped."""
    registry = agent.encoders.registry
    if not agent.encoder_version and registry.live_index(agent.key) is None:
        registry.record_live(agent.key, "", "")


def _made_by(root: Path, encoder: Encoder) -> bool:
    """Return whether a sample of the stored vectors is what an encoder makes of their texts; True if there are none."""
    import numpy as np

    stored = (
        entry
        for path in store_files(root)
        for entry in islice((entry for entry in file_entries(path) if entry.vector is not None), _SAMPLE_OF_FILE)
    )
    sample = list(islice(stored, _SAMPLE))
    vectors = [np.asarray(entry.vector, dtype=np.float32) for entry in sample]
    if any(vector.shape != (encoder.dim,) for vector in vectors):
        return False
    expected = encoder.encode([entry.text for entry in sample], role="document")
    return all(
        float(vector @ wanted) >= _MIN_COSINE * float(np.linalg.norm(vector))
        for vector, wanted in zip(vectors, expected, strict=True)
    )


def _record(agent: MemoryosAgent, encoder: Encoder) -> Binding:
    """Record an encoder as the one that serves a store whose vectors it made."""
    registry = agent.encoders.registry
    suffix = ""
    if registry.live_index(agent.key) is None:
        try:
            registry.record_live(agent.key, encoder.version, suffix)
        except SwapError as error:
            raise AgentError(
                f"Another process opened {agent.key} at the same moment with another encoder.", "Open it again."
            ) from error
    else:
        # Recorded with MemoryOS's own encoder before, for a swap.
        suffix = "_" + re.sub(r"[^A-Za-z0-9]+", "_", encoder.version).strip("_")
        registry.begin_shadow(agent.key, encoder.version, suffix)
        registry.flip(agent.key, suffix)
    return Binding(encoder, encoder.version, suffix)
