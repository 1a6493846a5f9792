"""What the contract suite does not see of Graphiti: its entities, its groups, its sum of ranks, other graphs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("graphiti_core.driver.kuzu_driver", reason="needs the extra graphiti")

from graphiti_core.edges import EntityEdge
from graphiti_core.embedder.openai import OpenAIEmbedder, OpenAIEmbedderConfig
from graphiti_core.nodes import EntityNode
from graphiti_world import add, close_graph, open_graph
from hins_adapter_graphiti.embedding import HinsEmbedder
from hins_adapter_graphiti.plugin import plugin

from hins_memory.config import Settings
from hins_memory.database.engine import open_database
from hins_memory.encoders.encoder import Encoder
from hins_memory.errors import AgentError
from hins_memory.log.capture import flush_all
from hins_memory.log.reader import LogReader
from hins_memory.registry.registry import EncoderVersion, Registry
from hins_memory.swapping import swap_agent
from hins_memory.types import Scope

TEXTS = ("Ann plays the cello.", "Bob grows tomatoes.", "Dai repairs old bicycles.")


@pytest.fixture
def graphiti(tmp_path: Path, shallow_folder: Path, settings: Settings) -> Iterator[Any]:
    """An attached `Graphiti` that was made with an encoder of hins-memory."""
    made = open_graph(tmp_path / "graph.kuzu", HinsEmbedder(shallow_folder))
    attached = plugin.hins_attach(made, {"settings": settings})
    yield attached
    if vars(made).get("hins") is not None:
        plugin.hins_detach(made)
    close_graph(made)


def logs(settings: Settings) -> dict[Scope, Any]:
    assert flush_all()
    return {log.scope.owner: log for log in LogReader(open_database(settings.database_url)).scope_logs()}


@pytest.mark.slow
def test_names_of_entities_are_swapped_and_words_count_as_in_a_search(
    graphiti: Any, tiny_version: EncoderVersion, settings: Settings
) -> None:
    agent = plugin.hins_agent(graphiti)
    assert agent is not None

    async def search(query: str) -> list[str]:
        return [fact.uuid for fact in await graphiti.search(query, group_ids=["ann"])]

    async def use() -> None:
        for text in TEXTS:
            await add(graphiti, text, "ann")
        swap_agent(agent, tiny_version.id, Encoder.load(tiny_version.path), Registry(settings))
        # Graphiti's own way to save, outside of any method that is recorded.
        await graphiti.nodes.entity.save(EntityNode(name="Eva", group_id="ann"))

    asyncio.run(use())
    encoder = Encoder.load(tiny_version.path)
    indexes = {index.kind: index for index in agent.live_indexes()}
    entities = [record for page in indexes["entities"].pages(9) for record in page]
    assert {"Ann", "Bob", "Dai", "Eva"} <= {record.text for record in entities}
    vectors = indexes["entities"].vectors([record.id for record in entities])
    for record in entities:
        assert np.dot(vectors[record.id], encoder.encode([record.text])[0]) > 0.999
    # As served: the ranking that the gate replays is that of a search.
    facts = indexes["memories"].vectors(indexes["memories"].ids())
    for query in ("Who repairs bicycles?", TEXTS[0]):
        (asked,) = encoder.encode([query], role="query")
        cosines = sorted(((id_, float(vector @ asked)) for id_, vector in facts.items()), key=lambda pair: -pair[1])
        assert agent.ranking is not None
        assert agent.ranking.rank(Scope(user="ann"), query, [cosines]) == [asyncio.run(search(query))]


def test_the_group_without_a_name_is_the_whole_graph_and_several_groups_are_of_nobody(
    graphiti: Any, settings: Settings
) -> None:
    async def use() -> None:
        await add(graphiti, TEXTS[0], None)
        await add(graphiti, TEXTS[1], "bob")
        assert len(await graphiti.search("Who is that?")) == 2
        assert len(await graphiti.search("Who is that?", group_ids=["bob", "ann"])) == 1

    asyncio.run(use())
    found = logs(settings)
    whole, bob = Scope(agent=plugin.hins_agent(graphiti).store_id), Scope(user="bob")
    assert {owner: [one.text for one in log.memories] for owner, log in found.items()} == {
        whole: [TEXTS[0]],
        bob: [TEXTS[1]],
    }
    assert [[one.text for one in item.results] for item in found[whole].retrievals] == [[TEXTS[0]]]
    assert found[bob].retrievals == ()


def test_a_graph_on_a_server_gets_a_tower_and_is_not_reembedded(
    graphiti: Any, shallow_folder: Path, settings: Settings
) -> None:
    from graphiti_core import Graphiti
    from graphiti_core.driver.neo4j_driver import Neo4jDriver

    def on_neo4j(embedder: Any) -> Any:
        clients = {"llm_client": graphiti.llm_client, "cross_encoder": graphiti.cross_encoder}
        # Nothing is asked of the server.
        driver = Neo4jDriver("bolt://127.0.0.1:9", "neo4j", "secret")
        return Graphiti(graph_driver=driver, embedder=embedder, **clients)

    served = on_neo4j(HinsEmbedder(shallow_folder))
    before = dict(vars(served))
    agent = plugin.hins_agent(plugin.hins_attach(served, {"settings": settings}))
    assert agent is not None
    assert agent.store_id == "graphiti:neo4j:127.0.0.1:9:neo4j"
    assert agent.encoder_version == Encoder.load(shallow_folder).version
    assert vars(plugin.hins_detach(served)) == before
    other = on_neo4j(OpenAIEmbedder(OpenAIEmbedderConfig(api_key="none")))
    another = Settings(home=settings.home, project="other", log_url="")
    with pytest.raises(AgentError, match="--mode tower"):
        plugin.hins_attach(other, {"settings": another, "embedder": "hins"})
    assert "hins" not in vars(other)


def test_a_fact_that_is_said_again_stays_what_it_was(graphiti: Any, settings: Settings) -> None:
    async def use() -> tuple[EntityEdge, EntityEdge]:
        first = await add(graphiti, TEXTS[0], "ann")
        again = await add(graphiti, TEXTS[0], "ann")
        await graphiti.remove_episode(again.episode.uuid)
        return first.edges[0], again.edges[0]

    first, again = asyncio.run(use())
    assert first.uuid == again.uuid
    (log,) = logs(settings).values()
    assert [(one.id, one.text, one.speaker) for one in log.memories] == [(first.uuid, TEXTS[0], "Ann")]
    assert log.deleted == 0
