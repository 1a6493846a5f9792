"""Finds out which encoder made the vectors of a MemoryOS store, and which one serves it."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from hins_adapter_memoryos.agent import MemoryosAgent
from hins_adapter_memoryos.component import Binding
from hins_adapter_memoryos.encoders import FrameworkEncoder
from hins_adapter_memoryos.files import store_files
from hins_adapter_memoryos.index import file_entries, usable_vectors
from hins_memory.config import Settings
from hins_memory.errors import AgentError
from hins_memory.plugins.protocols import Record
from hins_memory.registry.loader import EncoderSource
from hins_memory.registry.registry import Registry, index_suffix
from hins_memory.sdk.agents import AgentTable
from hins_memory.sdk.opening import check_stock, first_encoder, made_by, record_first

if TYPE_CHECKING:
    from hins_memory.encoders.encoder import Encoder

__all__ = ["choose_encoder", "open_agent"]

# How many stored vectors are compared with re-encoded texts.
_SAMPLE = 32
_SAMPLE_OF_FILE = 8

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
    live = agent.encoders.registry.live_index(agent.store_id)
    if live is not None and live.version:
        agent.serve_recorded(live.version, live.suffix)
    return agent


def choose_encoder(agent: MemoryosAgent, embedder: str | None, reembed: bool) -> Encoder | None:
    """Make a store serve with hins if it is asked for, and return the encoder it must be re-embedded with first.

    Args:
        agent: the store.
        embedder: ``hins``, ``stock``, or None for whatever serves.
        reembed: whether vectors of another encoder may be replaced.

    Raises:
        AgentError: the store holds vectors of another encoder and `reembed` is false.
    """
    if embedder is None:
        return None
    if agent.encoder_version:
        check_stock(agent, agent.encoders, embedder)
        return None
    encoder = first_encoder(agent.encoders, embedder)
    # What MemoryOS stored with its default model is served as it is, whatever new stores begin with.
    for candidate in dict.fromkeys((encoder, agent.encoders.stock())):
        if _made_by(agent.root, candidate):
            agent.accept(_record(agent, candidate))
            return None
    if reembed:
        return encoder
    raise AgentError(
        f"{agent.store_id} holds vectors of another encoder; {encoder.version} cannot search them.",
        'Re-embed them with hins_memory.attach(memory, embedder="hins", reembed=True).',
    )


def _made_by(root: Path, encoder: Encoder) -> bool:
    """Return whether a sample of the stored vectors is what an encoder makes of their texts; True if there are none."""
    stored = (
        entry
        for path in store_files(root)
        for entry in islice((entry for entry in file_entries(path) if entry.vector is not None), _SAMPLE_OF_FILE)
    )
    sample = list(islice(stored, _SAMPLE))
    vectors = {id_: vector for (_, id_), vector in usable_vectors(sample, encoder.dim).items()}
    records = [Record(entry.id, entry.text, {}) for entry in sample]
    return all(record.id in vectors for record in records) and made_by(encoder, records, vectors)


def _record(agent: MemoryosAgent, encoder: Encoder) -> Binding:
    """Record an encoder as the one that serves a store whose vectors it made."""
    known = agent.encoders.registry.live_index(agent.store_id) is not None
    suffix = index_suffix(encoder.version) if known else ""
    record_first(agent.encoders.registry, agent.store_id, encoder.version, suffix)
    return Binding(encoder, encoder.version, suffix)
