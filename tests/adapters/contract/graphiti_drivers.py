"""How the contract suite uses Graphiti."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from graphiti_world import add, close_graph, open_graph
from hins_adapter_graphiti.plugin import plugin as graphiti_plugin

from hins_memory.sdk import AgentTurn
from hins_memory.testing import AdapterDriver, Found, Place


class GraphitiDriver(AdapterDriver):
    """A `Graphiti` on a Kuzu that is embedded, with an encoder that hins-memory knows nothing of."""

    plugin = graphiti_plugin
    derived_kinds = ("entities", "communities")
    # Graphiti takes letters, digits, dashes and underscores.
    users: Sequence[Any] = ("ann", "7", "ann-bob", "ann_bob", "None")

    def __init__(self) -> None:
        self._episodes: dict[str, str] = {}

    def make(self, place: Place) -> Any:
        from graphiti_core.embedder.client import EmbedderClient

        from hins_memory.registry.loader import shared_encoder

        class Own(EmbedderClient):
            async def create(self, input_data: Any) -> list[float]:
                return (await self.create_batch(list(input_data)))[0]

            async def create_batch(self, input_data_list: list[str]) -> list[list[float]]:
                return shared_encoder(place.base).encode(input_data_list).tolist()

        return open_graph(place.folder / "graph.kuzu", Own())

    def add(self, memory: Any, text: str, user: Any) -> str:
        return asyncio.run(self.add_async(memory, text, user))

    def search(self, memory: Any, query: str, user: Any, limit: int) -> Found:
        # By cosine alone: by words too, texts that differ in a number would be equal.
        from graphiti_core.search.search_config import EdgeSearchConfig, EdgeSearchMethod, SearchConfig

        by_cosine = EdgeSearchConfig(search_methods=[EdgeSearchMethod.cosine_similarity], sim_min_score=-1.0)
        config = SearchConfig(edge_config=by_cosine, limit=limit)
        found = asyncio.run(memory.search_(query, config, group_ids=[user]))
        return [(fact.uuid, fact.fact) for fact in found.edges]

    def delete(self, memory: Any, id_: str, user: Any) -> None:
        asyncio.run(memory.remove_episode(self._episodes[id_]))

    async def make_async(self, place: Place) -> Any:
        return self.make(place)

    async def add_async(self, memory: Any, text: str, user: Any) -> str:
        done = await add(memory, text, user)
        (fact,) = done.edges
        self._episodes[fact.uuid] = done.episode.uuid
        return str(fact.uuid)

    async def search_async(self, memory: Any, query: str, user: Any, limit: int) -> Found:
        found = await memory.search(query, group_ids=[user], num_results=limit)
        return [(fact.uuid, fact.fact) for fact in found]

    def turn(self, memory: Any) -> AgentTurn:
        turn: AgentTurn = memory.hins.turn()
        return turn

    def close(self, memory: Any) -> None:
        self.plugin.hins_detach(memory)
        close_graph(memory)
