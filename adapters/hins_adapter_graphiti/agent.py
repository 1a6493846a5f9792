"""A `Graphiti` as an agent whose encoder can be swapped."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from graphiti_core.edges import EntityEdge
from graphiti_core.namespaces import EdgeNamespace, NodeNamespace
from graphiti_core.nodes import EpisodicNode

from hins_adapter_graphiti.driver import serving_driver
from hins_adapter_graphiti.embedding import ServingEmbedder, asking, embed_with
from hins_adapter_graphiti.index import is_kuzu, open_indexes, store_name
from hins_adapter_graphiti.ranking import MIN_COSINE, GraphitiRanking
from hins_memory.log.capture import never_raises
from hins_memory.plugins.protocols import Ranking
from hins_memory.registry.loader import TextEncoder
from hins_memory.sdk import AttachOptions, BesideAgent, OwnEncoder, TrackedIndex
from hins_memory.sdk.context import set_to
from hins_memory.types import RankedMemory, Scope

__all__ = ["GraphitiAgent"]

# What may add facts, or embed names.
_WRITES = ("add_episode", "add_episode_bulk", "add_triplet", "build_communities")


class GraphitiAgent(BesideAgent):
    """What takes the place of a `Graphiti`'s methods: its own, on the vectors and the encoder that serve.

    A fact, which is an edge of the graph, is a memory. A group is a user; the group without a name is the whole graph.
    """

    name = "graphiti"
    methods = (*_WRITES, "search", "search_", "remove_episode", "driver", "embedder", "clients", "nodes", "edges")
    score_thresholds = (MIN_COSINE,)

    def __init__(self, memory: Any, options: AttachOptions) -> None:
        self._own_driver, self._own_embedder = memory.driver, memory.embedder
        super().__init__(memory, options)
        self.driver = serving_driver(self._own_driver, lambda: self.binding)
        self.embedder = ServingEmbedder(self._own_embedder, lambda: self.binding)
        self.clients = memory.clients.model_copy(update={"driver": self.driver, "embedder": self.embedder})
        self.nodes, self.edges = (kind(self.driver, self.embedder) for kind in (NodeNamespace, EdgeNamespace))

    def __getattr__(self, name: str) -> Any:
        if name in _WRITES:
            return partial(self._write, name)
        raise AttributeError(name)

    def store_of(self, memory: Any) -> str:
        """Name the graph."""
        return store_name(memory.driver)

    @property
    def own_embedder(self) -> Any:
        """What the object was made with."""
        return self._own_embedder

    def own_encoder(self) -> TextEncoder:
        """Return the same as an encoder."""
        return OwnEncoder(partial(embed_with, self._own_embedder))

    def indexes(self, suffix: str, encoder: Any = None) -> Sequence[TrackedIndex]:
        """Open the graph's own vectors, or those beside them."""
        return open_indexes(self._own_driver, suffix)

    @property
    def ranking(self) -> Ranking | None:
        """Graphiti's sum of ranks, by words and by cosine; None for graphs that only one event loop can ask."""
        return GraphitiRanking(self._own_driver) if is_kuzu(self._own_driver) else None

    async def search(self, query: str, *args: Any, **options: Any) -> Any:
        """Search for facts. Graphiti gives no scores with these; what is recorded is one by the place."""
        scope, version, found = await self._asked("search", query, *args, **options)
        self._searched(scope, query, found, [1 / place for place in range(1, len(found) + 1)], version)
        return found

    async def search_(self, query: str, *args: Any, **options: Any) -> Any:
        """Search by a configuration; the facts found are recorded."""
        scope, version, found = await self._asked("search_", query, *args, **options)
        self._searched(scope, query, found.edges, found.edge_reranker_scores, version)
        return found

    async def _asked(self, method: str, *args: Any, **options: Any) -> tuple[Scope | None, str, Any]:
        """Search; return whose facts that is for, None where it names several groups, and the version that serves."""
        groups = self.arguments(method, args, options).get("group_ids") or [""]
        scope = self._scope(groups[0]) if len(groups) == 1 else None
        async with self.pin_async(scope) as binding:
            with set_to(asking, True):
                return scope, binding.version, await self._call(method, *args, **options)

    async def _write(self, method: str, *args: Any, **options: Any) -> Any:
        async with self.pin_async():
            done = await self._call(method, *args, **options)
        self._stored(done)
        return done

    async def remove_episode(self, episode_uuid: str) -> None:
        """Remove an episode; the facts that went with it are recorded as deleted."""
        async with self.pin_async():
            episode = await EpisodicNode.get_by_uuid(self.driver, episode_uuid)
            before = await EntityEdge.get_by_uuids(self.driver, episode.entity_edges)
            await self._call("remove_episode", episode_uuid)
            left = await EntityEdge.get_by_uuids(self.driver, [edge.uuid for edge in before])
        self._gone(before, {edge.uuid for edge in left})

    async def _call(self, method: str, *args: Any, **options: Any) -> Any:
        return await getattr(type(self.memory), method)(self.memory, *args, **options)

    def _scope(self, group: str) -> Scope | None:
        named = group not in ("", self._own_driver.default_group_id)
        return Scope.of(user=group) if named else Scope.of(agent=self.store_id)

    @never_raises(None)
    def _searched(
        self, scope: Scope | None, query: str, facts: Sequence[Any], scores: Sequence[float], version: str
    ) -> None:
        # A search that names no group finds the facts of all.
        found = [
            (self._scope(fact.group_id), RankedMemory(fact.uuid, fact.fact, float(score)))
            for fact, score in zip(facts, scores, strict=True)
        ]
        self.recorder.record_search(scope, query, found, version)

    @never_raises(None)
    def _stored(self, done: Any) -> None:
        """Record the facts that are new; others come back because an episode says them again, or denies them."""
        episodes = getattr(done, "episodes", None) or [getattr(done, "episode", None)]
        added = {episode.uuid for episode in episodes if episode is not None}
        names = {node.uuid: node.name for node in getattr(done, "nodes", ())}
        # What `build_communities` returns has neither.
        for fact in getattr(done, "edges", ()):
            if not fact.episodes or fact.episodes[0] in added:
                speaker = names.get(fact.source_node_uuid, "")
                scope = self._scope(fact.group_id)
                self.recorder.record_memory(scope, fact.uuid, fact.group_id, fact.fact, speaker=speaker)

    @never_raises(None)
    def _gone(self, before: Sequence[Any], left: set[str]) -> None:
        for fact in before:
            if fact.uuid not in left:
                self.recorder.record_deletion(self._scope(fact.group_id), fact.uuid)
