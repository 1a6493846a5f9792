"""A `Graphiti` as an agent whose encoder can be swapped."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import partial
from typing import Any

from graphiti_core.edges import EntityEdge
from graphiti_core.namespaces import EdgeNamespace, NodeNamespace
from graphiti_core.nodes import EpisodicNode

from hins_adapter_graphiti.driver import serving_driver
from hins_adapter_graphiti.embedding import HinsEmbedder, ServingEmbedder, asking, embed_with
from hins_adapter_graphiti.index import is_kuzu, open_indexes, store_name
from hins_adapter_graphiti.ranking import MIN_COSINE, GraphitiRanking
from hins_memory.log.capture import never_raises
from hins_memory.plugins.protocols import Ranking
from hins_memory.registry.loader import TextEncoder
from hins_memory.sdk import AttachOptions, Binding, ObjectAgent, OwnEncoder, TrackedIndex
from hins_memory.types import Deletion, Memory, RankedMemory, Retrieval, Scope

__all__ = ["GraphitiAgent"]

_PARTS = ("driver", "embedder", "clients", "nodes", "edges")


class GraphitiAgent(ObjectAgent):
    """What takes the place of a `Graphiti`'s methods: its own, on the vectors and the encoder that serve.

    A fact, which is an edge of the graph, is a memory. A group is a user; the group without a name is the whole graph.
    """

    name = "graphiti"
    methods = (
        *("search", "search_", "add_episode", "add_episode_bulk", "add_triplet", "remove_episode"),
        "build_communities",
    )
    score_thresholds = (MIN_COSINE,)

    def __init__(self, memory: Any, options: AttachOptions) -> None:
        #: the object's own attributes that others take the place of
        self.own_parts = {name: vars(memory)[name] for name in _PARTS}
        self._driver = memory.driver
        super().__init__(memory, options)

    def parts(self) -> dict[str, Any]:
        """Return what takes the place of the object's own attributes."""
        driver, embedder = self._driver, ServingEmbedder(self.memory.embedder, lambda: self.binding)
        if is_kuzu(driver):
            driver = serving_driver(driver, lambda: self.binding)
        clients = self.memory.clients.model_copy(update={"driver": driver, "embedder": embedder})
        nodes, edges = NodeNamespace(driver, embedder), EdgeNamespace(driver, embedder)
        return dict(zip(_PARTS, (driver, embedder, clients, nodes, edges), strict=True))

    def store_of(self, memory: Any) -> str:
        """Name the graph."""
        return store_name(memory.driver)

    def open(self, options: AttachOptions) -> None:
        """Serve as asked; vectors of other encoders are in properties beside Graphiti's own."""
        embedder = self.memory.embedder
        self.serve_beside(options, self.own, embedder.encoder if isinstance(embedder, HinsEmbedder) else None)

    def own(self) -> tuple[TextEncoder, TrackedIndex]:
        """Return the graph's own embedder, and the first of its own indexes that holds something."""
        indexes = open_indexes(self._driver)
        first = indexes[0] if len(indexes) == 1 else next((one for one in indexes if one.count()), indexes[0])
        return OwnEncoder(partial(embed_with, self.memory.embedder)), first

    def serve_framework_encoder(self, binding: Binding) -> None:
        """Serve from the graph's own embedder and all of its own vectors."""
        super().serve_framework_encoder(Binding(binding.encoder, "", "", open_indexes(self._driver)))

    def index(self, suffix: str) -> TrackedIndex:
        """Open the vectors of facts that are beside the graph's own."""
        return open_indexes(self._driver, suffix)[0]

    def bind(self, version: str, suffix: str) -> Binding:
        """Open the vectors of a version, creating the properties that are missing."""
        return Binding(self.encoders.by_version(version), version, suffix, open_indexes(self._driver, suffix))

    @property
    def ranking(self) -> Ranking | None:
        """Graphiti's sum of ranks, by words and by cosine; None for graphs that only one event loop can ask."""
        return GraphitiRanking(self._driver) if is_kuzu(self._driver) else None

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
        scope = self._scope_asked(method, args, options)
        async with self.pin_async(scope) as binding:
            token = asking.set(True)
            try:
                return scope, binding.version, await self._call(method, *args, **options)
            finally:
                asking.reset(token)

    async def add_episode(self, *args: Any, **options: Any) -> Any:
        """Add an episode; the facts that are new are recorded."""
        done = await self._pinned("add_episode", *args, **options)
        self._stored(done, [done.episode])
        return done

    async def add_episode_bulk(self, *args: Any, **options: Any) -> Any:
        """Add episodes; the facts that are new are recorded."""
        done = await self._pinned("add_episode_bulk", *args, **options)
        self._stored(done, done.episodes)
        return done

    async def add_triplet(self, *args: Any, **options: Any) -> Any:
        """Add a fact."""
        done = await self._pinned("add_triplet", *args, **options)
        self._stored(done, [])
        return done

    async def build_communities(self, *args: Any, **options: Any) -> Any:
        """Build communities, whose names are embedded."""
        return await self._pinned("build_communities", *args, **options)

    async def remove_episode(self, episode_uuid: str) -> None:
        """Remove an episode; the facts that went with it are recorded as deleted."""
        async with self.pin_async():
            episode = await EpisodicNode.get_by_uuid(self.memory.driver, episode_uuid)
            before = await EntityEdge.get_by_uuids(self.memory.driver, episode.entity_edges)
            await self._call("remove_episode", episode_uuid)
            left = await EntityEdge.get_by_uuids(self.memory.driver, [edge.uuid for edge in before])
        self._gone(before, {edge.uuid for edge in left})

    async def _pinned(self, method: str, *args: Any, **options: Any) -> Any:
        async with self.pin_async():
            return await self._call(method, *args, **options)

    async def _call(self, method: str, *args: Any, **options: Any) -> Any:
        return await getattr(type(self.memory), method)(self.memory, *args, **options)

    def _scope_asked(self, method: str, args: Sequence[Any], options: dict[str, Any]) -> Scope | None:
        """Return whose facts a search is for; None where it names several groups."""
        signature = inspect.signature(getattr(type(self.memory), method))
        groups = signature.bind(None, *args, **options).arguments.get("group_ids") or [""]
        return self._scope(groups[0]) if len(groups) == 1 else None

    def _scope(self, group: str) -> Scope | None:
        named = group not in ("", self._driver.default_group_id)
        return Scope.of(user=group) if named else Scope.of(agent=self.store_id)

    @never_raises(None)
    def _searched(
        self, scope: Scope | None, query: str, facts: Sequence[Any], scores: Sequence[float], version: str
    ) -> None:
        if scope is None:
            self.recorder.left_out()
            return
        # A search that names no group finds the facts of all.
        pairs = [pair for pair in zip(facts, scores, strict=True) if self._scope(pair[0].group_id) == scope]
        if pairs or not facts:
            ranked = tuple(RankedMemory(fact.uuid, fact.fact, float(score)) for fact, score in pairs)
            self.recorder.retrieved(Retrieval(scope, query, ranked, version))

    @never_raises(None)
    def _stored(self, done: Any, episodes: Sequence[Any]) -> None:
        """Record the facts that are new; others come back because an episode says them again, or denies them."""
        added = {episode.uuid for episode in episodes}
        names = {node.uuid: node.name for node in done.nodes}
        for fact in done.edges:
            scope = self._scope(fact.group_id)
            if scope is not None and (not fact.episodes or fact.episodes[0] in added):
                speaker = names.get(fact.source_node_uuid, "")
                self.recorder.record(Memory(fact.uuid, scope, fact.group_id, fact.fact, speaker=speaker))

    @never_raises(None)
    def _gone(self, before: Sequence[Any], left: set[str]) -> None:
        for fact in before:
            scope = self._scope(fact.group_id)
            if scope is not None and fact.uuid not in left:
                self.recorder.record(Deletion(scope, fact.uuid))
