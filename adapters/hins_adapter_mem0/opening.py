"""Finds out which encoder and which collections serve a Mem0 store, and opens them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hins_adapter_mem0.agent import AGENTS, Mem0Agent
from hins_adapter_mem0.clients import acquire_folder, release_folder
from hins_adapter_mem0.config import embedded_path, store_key
from hins_adapter_mem0.index import missing_feature
from hins_adapter_mem0.indexes import open_index
from hins_adapter_mem0.stores import StoreOpener, entity_collection, store_client
from hins_memory.config import Settings
from hins_memory.encoders.encoder import Encoder
from hins_memory.errors import AgentError
from hins_memory.registry.loader import EncoderSource
from hins_memory.registry.registry import Registry, index_suffix
from hins_memory.sdk.opening import check_stock, record_framework_encoder

__all__ = [
    "open_agent",
    "open_attached_agent",
    "open_own_agent",
    "open_recording_agent",
    "recorded_version",
]


@dataclass(frozen=True)
class _Store:
    """A store of Mem0. `client` is the Qdrant client that came with it; `own` the object that identifies its agent."""

    provider: str
    config: Any
    client: Any
    own: Any

    @classmethod
    def of_memory(cls, memory: Any) -> _Store:
        """Return the store of a live memory."""
        store, client = memory.config.vector_store, store_client(memory.vector_store)
        return cls(store.provider, store.config, client, client or memory.vector_store)

    @property
    def id(self) -> str:
        """What identifies it in every process."""
        return store_key(self.provider, self.config)

    def opener(self, held: ExitStack) -> StoreOpener:
        """Return what opens its collections, and let `held` release its folder if it is an embedded store.

        Raises:
            AgentError: another process holds the folder, or the store cannot have a second collection.
        """
        opener = StoreOpener(self.provider, self.config, self.client)
        path = getattr(self.config, "path", None)
        if self.provider in ("faiss", "chroma") and not opener.shared and path:
            acquire_folder(str(path), self.provider)
            held.callback(release_folder, str(path))
        elif self.client is None and self.provider == "qdrant":
            opener.client = self._qdrant(held)
        return opener

    def _qdrant(self, held: ExitStack) -> Any:
        """Connect as Mem0's store does, to share the client between the collections."""
        if path := embedded_path(self.provider, self.config):
            client = acquire_folder(path, self.provider)
            held.callback(release_folder, path)
            return client
        from qdrant_client import QdrantClient

        names = ("url", "host", "port", "api_key", "https")
        return QdrantClient(**{name: value for name in names if (value := getattr(self.config, name)) is not None})

    def agent(self, settings: Settings, model: str | Path | None, serve: Callable[[Mem0Agent], None]) -> Mem0Agent:
        """Return this process's agent, opened and made to serve by `serve` if there is none.

        Raises:
            AgentError: see `opener`; and whatever `serve` raises. The store is released then.
        """

        def make() -> Mem0Agent:
            with ExitStack() as held:
                agent = Mem0Agent(self.id, self.opener(held), EncoderSource(Registry(settings), model))
                serve(agent)
                agent.close_with(held.pop_all())
            return agent

        return AGENTS.get_or_open((settings.database_url, self.id, 0 if self.own is None else id(self.own)), make)

    def serving_agent(
        self, settings: Settings, embedder: str, model: str | Path | None, *, in_place: bool
    ) -> Mem0Agent:
        """Return the agent, serving what the registry says is live; a store it does not know from an empty index.

        Raises:
            AgentError: see `agent`; or another encoder embedded what the store holds.
        """

        def serve(agent: Mem0Agent) -> None:
            agent.serve_recorded(
                embedder, lambda encoder, known: _first_suffix(agent, encoder, in_place=in_place and not known)
            )

        agent = self.agent(settings, model, serve)
        check_stock(agent, agent.encoders, embedder)
        return agent


def open_agent(config: Any, settings: Settings, embedder: str, model: str | Path | None) -> Mem0Agent:
    """Open the agent of a completed Mem0 configuration, or return the one that this process has.

    Raises:
        AgentError: the store is held by another process, holds memories of another encoder, or cannot be swapped.
    """
    store = config.vector_store
    given = getattr(store.config, "client", None)
    # Clients of other stores stay in the configuration, from which Mem0 opens every collection.
    client = given if store.provider == "qdrant" else None
    return _Store(store.provider, store.config, client, given).serving_agent(settings, embedder, model, in_place=True)


def recorded_version(memory: Any, settings: Settings) -> str:
    """Return the encoder version that a live memory's store is recorded with; "" when it is not in the registry."""
    live = Registry(settings).live_index(_Store.of_memory(memory).id)
    return live.version if live is not None else ""


def open_attached_agent(memory: Any, settings: Settings, embedder: str, model: str | Path | None) -> Mem0Agent:
    """Open the agent of a live memory's store, in collections of its own beside the memory's.

    Raises:
        AgentError: the store holds memories that another encoder embedded.
    """
    return _Store.of_memory(memory).serving_agent(settings, embedder, model, in_place=False)


def open_own_agent(memory: Any, settings: Settings, model: str | Path | None = None) -> Mem0Agent:
    """Open the agent of a live memory's store as it is, with Mem0's own embedder, so that it can be swapped."""

    def serve(agent: Mem0Agent) -> None:
        agent.serve_memory(memory.embedding_model, memory.vector_store, _own_entities(agent.opener, memory))
        record_framework_encoder(agent, agent.encoders.registry)

    return _Store.of_memory(memory).agent(settings, model, serve)


def _own_entities(opener: StoreOpener, memory: Any) -> Any:
    """Return a memory's store of entities."""
    if opener.provider not in ("azure_ai_search", "pinecone"):
        return memory.entity_store
    # Mem0's own fails by its name, in which they allow no underscore.
    config = opener.config
    return opener.open(entity_collection(opener.provider, config.collection_name), config.embedding_model_dims).raw


def open_recording_agent(memory: Any, settings: Settings) -> Mem0Agent | None:
    """Open the agent of a memory that only records, where another process might swap its store; else None.

    Without it, this process would go on writing to an index that no longer serves.
    """
    try:
        store = memory.config.vector_store
        opener = StoreOpener(store.provider, store.config, store_client(memory.vector_store))
    except AgentError:
        return None
    return open_own_agent(memory, settings) if opener.shared and not missing_feature(memory.vector_store) else None


def _first_suffix(agent: Mem0Agent, encoder: Encoder, *, in_place: bool) -> str:
    """Return the suffix of a store's first index, which must be empty."""
    opener = agent.opener
    collection = str(opener.config.collection_name)
    held, dim = _inspect_collection(opener, collection, encoder.dim)
    if held:
        raise AgentError(
            f"{agent.store_id} holds {held} that another encoder embedded; {encoder.version} cannot search them.",
            'Re-embed them with hins_memory.attach(memory, embedder="hins", reembed=True), or use another collection.',
        )
    if in_place:
        entities, entity_dim = _inspect_collection(opener, entity_collection(opener.provider, collection), encoder.dim)
        if not entities and {dim, entity_dim} <= {None, encoder.dim}:
            return ""
    # Beside the collection that is there, which stays as it is: for its own embedder after a detach.
    return "_hins" + index_suffix(encoder.version)


def _inspect_collection(opener: StoreOpener, collection: str, dim: int) -> tuple[str, int | None]:
    """Return what a collection holds, in words ("" for nothing), and its dimension (None if missing or not known).

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
