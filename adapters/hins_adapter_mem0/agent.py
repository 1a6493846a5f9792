"""A Mem0 store whose encoder and collections can be swapped while it serves."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from hins_adapter_mem0.embedding import FrameworkEncoder, HinsEmbedding
from hins_adapter_mem0.index import StoreIndex
from hins_adapter_mem0.indexes import open_index
from hins_adapter_mem0.keywords import WeightedStore
from hins_adapter_mem0.ranking import Mem0Ranking
from hins_adapter_mem0.stores import GuardedStore, StoreOpener, entity_collection, prepare_store, release_store
from hins_memory.registry.loader import EncoderSource
from hins_memory.sdk.agents import AgentTable
from hins_memory.sdk.binding_agent import Binding
from hins_memory.sdk.store_agent import StoreAgent

if TYPE_CHECKING:
    from hins_memory.encoders.encoder import Encoder

__all__ = ["AGENTS", "Mem0Agent", "Mem0Binding"]


@dataclass(frozen=True, kw_only=True)
class Mem0Binding(Binding):
    """An embedder with the stores that hold its vectors; `version` is "" for Mem0's own embedder.

    `searched` is what Mem0 works on: `memories`, with the keyword weight of the encoder where it has one.
    """

    embedding: Any
    memories: GuardedStore
    entities: GuardedStore

    @cached_property
    def searched(self) -> GuardedStore:
        """The memories as Mem0 is to search them."""
        weight = getattr(self.encoder, "keyword_weight", None)
        return self.memories if weight is None else WeightedStore(self.memories, weight)

    def indexes(self) -> Sequence[StoreIndex]:
        """Return the memories and the entities as indexes."""
        return [open_index(self.memories, "memories"), open_index(self.entities, "entities")]

    def with_queries(self, encoder: Encoder) -> Mem0Binding:
        """Return the same stores with another encoder that makes the same vectors of documents."""
        embedding = HinsEmbedding(encoder=encoder)
        return replace(self, embedding=embedding, encoder=encoder, version=encoder.version)


class Mem0Agent(StoreAgent[Mem0Binding]):
    """One Mem0 store, shared by every Memory of this process that works on it."""

    name = "mem0"
    #: Mem0's thresholds: results below 0.1 are cut, entities boost from 0.5 and are merged from 0.95.
    score_thresholds = (0.1, 0.5, 0.95)

    def __init__(self, store_id: str, opener: StoreOpener, encoders: EncoderSource) -> None:
        super().__init__(store_id, encoders, shared=opener.shared)
        self.opener = opener
        self._collection = str(opener.config.collection_name)
        self._users: weakref.WeakSet[Any] = weakref.WeakSet()
        self._closer: weakref.finalize[[], Mem0Agent] | None = None

    @property
    def ranking(self) -> Mem0Ranking | None:
        """How this store's searches rank; None where neither keywords nor entities count beside the cosines."""
        binding = self.binding
        found = Mem0Ranking(binding.embedding, binding.memories, binding.entities)
        return found if found.signals else None

    def close_with(self, held: ExitStack) -> None:
        """Release the store's folder when the last user leaves, or when this agent is freed."""
        self._closer = weakref.finalize(self, held.close)

    def join(self, memory: Any) -> None:
        """Count a memory as a user of this agent."""
        self._users.add(memory)

    def leave(self, memory: Any) -> None:
        """Remove a memory from the users; after the last one the store is closed, and another process can open it."""
        with AGENTS.lock:
            self._users.discard(memory)
            if self._users:
                return
            AGENTS.remove(self)
            if self._framework is not None:
                release_store(self._framework.memories.raw)
                release_store(self._framework.entities.raw)
            if self._closer is not None:
                self._closer()

    def serve_memory(self, embedding: Any, memories: Any, entities: Any) -> None:
        """Serve from a Memory's own embedder and stores, so that they can be swapped.

        Raises:
            AgentError: the files of a store are damaged.
        """
        prepare_store(memories, self._collection)
        prepare_store(entities, entity_collection(self.opener.provider, self._collection))
        own = Mem0Binding(
            embedding=embedding,
            encoder=FrameworkEncoder(embedding),
            memories=GuardedStore(memories, self.opener.lock(memories.collection_name)),
            entities=GuardedStore(entities, self.opener.lock(entities.collection_name)),
            version="",
            suffix="",
        )
        self.serve_framework_encoder(own)

    def bind(self, version: str, suffix: str) -> Mem0Binding:
        """Open the collections of a version, creating what is missing.

        Raises:
            AgentError: the version's encoder cannot be loaded.
            EncoderError: it is damaged.
        """
        encoder = self.encoders.by_version(version)
        collection = f"{self._collection}{suffix}"
        return Mem0Binding(
            embedding=HinsEmbedding(encoder=encoder),
            encoder=encoder,
            memories=self.opener.open(collection, encoder.dim),
            entities=self.opener.open(entity_collection(self.opener.provider, collection), encoder.dim),
            version=version,
            suffix=suffix,
        )

    def reset(self) -> None:
        """Delete everything that the store holds, in the serving collections, the shadow's and the previous ones."""
        with self._lock:
            for store in (self.current.memories, self.current.entities):
                store.reset()
            previous = self.encoders.registry.previous_index(self.store_id)
            if previous is not None:
                for index in self._open_or_reuse(previous.version, previous.suffix).indexes():
                    index.clear()


#: The agents of this process. A client that the user gave is part of the name, so that two clients have two agents.
#: The agent refers to its client, so that the client's address identifies it as long as the agent exists.
AGENTS: AgentTable[Mem0Agent] = AgentTable()
