"""Finds out which encoder and which collections a Mem0 store is served with, and opens them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hins_adapter_mem0.agent import AGENTS, Mem0Agent
from hins_adapter_mem0.clients import acquire_client, acquire_folder, release_client
from hins_adapter_mem0.config import embedded_path, store_key
from hins_adapter_mem0.index import lacking
from hins_adapter_mem0.indexes import open_index
from hins_adapter_mem0.stores import StoreOpener, entity_collection, store_client
from hins_memory.config import Settings
from hins_memory.encoders.encoder import Encoder
from hins_memory.errors import AgentError
from hins_memory.registry.loader import EncoderSource
from hins_memory.sdk.opening import check_stock, record_framework_encoder

if TYPE_CHECKING:
    pass

__all__ = [
    "Embedder",
    "open_agent",
    "open_attached_agent",
    "open_own_agent",
    "open_recording_agent",
    "recorded_version",
]

#: ``hins``: the project's encoder. ``stock``: the plain base, untrained.
Embedder = str


def open_agent(config: Any, settings: Settings, embedder: Embedder, model: str | Path | None) -> Mem0Agent:
    """Open the agent of a completed Mem0 configuration, or return the one that this process has.

    Raises:
        AgentError: the store is held by another process, holds memories of another encoder, or cannot be swapped.
    """
    provider, store_config = config.vector_store.provider, config.vector_store.config
    path, key = embedded_path(provider, store_config), store_key(provider, store_config)
    given = getattr(store_config, "client", None)

    def make() -> Mem0Agent:
        client = acquire_client(path) if path else given or _connect(provider, store_config)
        try:
            opener = StoreOpener(provider, store_config, client)
            with _held(opener) as folder:
                agent = _new_agent(key, opener, settings, model)
                _serve_first(agent, embedder, in_place=True)
        except BaseException:
            if path:
                release_client(path)
            raise
        if place := path or folder:
            agent.owns_client(place)
        return agent

    agent = _shared(settings, key, given, make)
    check_stock(agent, agent.encoders, embedder)
    return agent


@contextlib.contextmanager
def _held(opener: StoreOpener) -> Iterator[str]:
    """Keep other processes out of the folder of an embedded store that does not do so itself.

    Yields:
        The folder, which the agent has to give back; "" where there is nothing to hold. An error gives it back.
    """
    path = getattr(opener.config, "path", None)
    if opener.provider not in ("faiss", "chroma") or opener.shared or not path:
        yield ""
        return
    acquire_folder(str(path), opener.provider)
    try:
        yield str(path)
    except BaseException:
        release_client(str(path))
        raise


def _connect(provider: str, store_config: Any) -> Any:
    """Connect to a Qdrant server as Mem0's store does, to share the client between the collections."""
    if provider != "qdrant":
        return None
    from qdrant_client import QdrantClient

    names = ("url", "host", "port", "api_key", "https")
    return QdrantClient(**{name: value for name in names if (value := getattr(store_config, name)) is not None})


def recorded_version(memory: Any, settings: Settings) -> str:
    """Return the encoder version that a live memory's store is recorded with; "" when it is not ours."""
    from hins_memory.registry.registry import Registry

    live = Registry(settings).live_index(_memory_key(memory))
    return live.version if live is not None else ""


def open_attached_agent(memory: Any, settings: Settings, embedder: Embedder, model: str | Path | None) -> Mem0Agent:
    """Open the agent of a live memory's store, in collections of its own beside the memory's.

    Raises:
        AgentError: the store holds memories that another encoder embedded.
    """

    def make() -> Mem0Agent:
        opener = _memory_opener(memory)
        with _held(opener) as folder:
            agent = _new_agent(_memory_key(memory), opener, settings, model)
            _serve_first(agent, embedder, in_place=False)
        if folder:
            agent.owns_client(folder)
        return agent

    agent = _shared(settings, _memory_key(memory), _memory_client(memory), make)
    check_stock(agent, agent.encoders, embedder)
    return agent


def open_own_agent(memory: Any, settings: Settings, model: str | Path | None = None) -> Mem0Agent:
    """Open the agent of a live memory's store as it is, with Mem0's own embedder, so that it can be swapped."""

    def make() -> Mem0Agent:
        opener = _memory_opener(memory)
        with _held(opener) as folder:
            agent = _new_agent(_memory_key(memory), opener, settings, model)
            agent.serve_memory(memory.embedding_model, memory.vector_store, memory.entity_store)
            record_framework_encoder(agent, agent.encoders.registry)
        if folder:
            agent.owns_client(folder)
        return agent

    return _shared(settings, _memory_key(memory), _memory_client(memory), make)


def open_recording_agent(memory: Any, settings: Settings) -> Mem0Agent | None:
    """Open the agent of a memory that only records, where another process might swap its store; else None.

    Without it, this process would go on writing to an index that no longer serves.
    """
    try:
        swappable = _memory_opener(memory).shared and not lacking(memory.vector_store)
    except AgentError:
        return None
    return open_own_agent(memory, settings) if swappable else None


def _shared(settings: Settings, key: str, client: Any, make: Callable[[], Mem0Agent]) -> Mem0Agent:
    """Return this process's agent for a store and a client that the user gave, or None."""
    return AGENTS.get_or_open((settings.database_url, key, 0 if client is None else id(client)), make)


def _new_agent(key: str, opener: StoreOpener, settings: Settings, model: str | Path | None) -> Mem0Agent:
    from hins_memory.registry.registry import Registry

    return Mem0Agent(key, opener, EncoderSource(Registry(settings), model))


def _memory_key(memory: Any) -> str:
    store = memory.config.vector_store
    return store_key(store.provider, store.config)


def _memory_client(memory: Any) -> Any:
    return store_client(memory.vector_store) or memory.vector_store


def _memory_opener(memory: Any) -> StoreOpener:
    store = memory.config.vector_store
    return StoreOpener(store.provider, store.config, store_client(memory.vector_store))


def _serve_first(agent: Mem0Agent, embedder: Embedder, *, in_place: bool) -> None:
    """Serve from what the registry says is live; for a store it does not know, from a first index that is empty."""

    def suffix_of(encoder: Encoder, known: bool) -> str:
        return _first_suffix(agent, encoder, in_place=in_place and not known)

    agent.serve_recorded(embedder, suffix_of)


def _first_suffix(agent: Mem0Agent, encoder: Encoder, *, in_place: bool) -> str:
    """Return the suffix of a store's first index, which must be empty."""
    opener = agent.opener
    collection = str(opener.config.collection_name)
    held, dim = _look(opener, collection, encoder.dim)
    if held:
        raise AgentError(
            f"{agent.store_id} holds {held} that another encoder embedded; {encoder.version} cannot search them.",
            'Re-embed them with hins_memory.attach(memory, embedder="hins", reembed=True), or use another collection.',
        )
    if in_place:
        entities, entity_dim = _look(opener, entity_collection(opener.provider, collection), encoder.dim)
        if not entities and {dim, entity_dim} <= {None, encoder.dim}:
            return ""
    # Beside the collection that is there, which stays as it is: for its own embedder after a detach.
    return "_hins_" + re.sub(r"[^A-Za-z0-9]+", "-", encoder.version)


def _look(opener: StoreOpener, collection: str, dim: int) -> tuple[str, int | None]:
    """Return in words what a collection holds ("": nothing), and its dimension (None: not there yet, or not known).

    Stores other than Qdrant cannot be asked without creating the collection; then it gets `dim`.
    """
    if opener.client is not None and not opener.client.collection_exists(collection):
        return "", None
    index = open_index(opener.open(collection, dim), "memories")
    held = ""
    if not index.is_empty():
        held = "memories"
        with contextlib.suppress(AgentError):
            held = f"{index.count()} memories"
    return held, index.dimension()
