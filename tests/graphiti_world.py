"""A `Graphiti` on an embedded Kuzu, and the language model that finds one fact in each episode."""

from __future__ import annotations

import asyncio
import re
import shutil
import tempfile
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path
from typing import Any

from llm_server import LLMServer

_CURRENT = re.compile(r"<CURRENT[_ ]MESSAGE>(.*?)</CURRENT[_ ]MESSAGE>", re.DOTALL)
_LAST_ID = re.compile(r"with IDs 0 through (\d+)")


class GraphServer(LLMServer):
    """Answers what Graphiti asks: an episode is one fact, between its first word and the rest."""

    def _completion(self, body: dict[str, Any]) -> Any:
        schema = body["response_format"]["json_schema"]["name"]
        prompt = "\n".join(str(message["content"]) for message in body["messages"])
        self.default = self._answer(schema, prompt)
        return super()._completion(body)

    def _answer(self, schema: str, prompt: str) -> dict[str, Any]:
        found = _CURRENT.search(prompt)
        text = found[1].strip() if found else ""
        subject, _, rest = text.partition(" ")
        if schema == "ExtractedEntities":
            return {"extracted_entities": [{"name": name, "entity_type_id": 0} for name in (subject, rest)]}
        if schema == "NodeResolutions":
            last = _LAST_ID.search(prompt)
            new = {"name": "", "duplicate_candidate_id": -1}
            return {"entity_resolutions": [{"id": number, **new} for number in range(int(last[1]) + 1 if last else 1)]}
        if schema == "ExtractedEdges":
            ends = {"source_entity_name": subject, "target_entity_name": rest}
            return {"edges": [{**ends, "relation_type": "DOES", "fact": text}]}
        empty = {
            "EdgeDuplicate": ["duplicate_facts", "contradicted_facts"],
            "SummarizedEntities": ["summaries"],
        }
        return {name: [] for name in empty.get(schema, [])}


@lru_cache(maxsize=1)
def language_model() -> str:
    """Return the URL of a language model that answers as long as this process lives."""
    return GraphServer().__enter__().base_url


@lru_cache(maxsize=1)
def _empty_graph() -> Path:
    """Return a Kuzu with Graphiti's tables and indexes of words, which take a second to build."""
    from graphiti_core.driver.kuzu_driver import KuzuDriver

    path = Path(tempfile.mkdtemp()) / "graph.kuzu"
    driver = KuzuDriver(str(path))
    asyncio.run(driver.graph_ops.build_indices_and_constraints(driver))
    driver.client.close()
    driver.db.close()
    return path


def open_graph(path: Path, embedder: Any) -> Any:
    """Return a `Graphiti` on a Kuzu's file, which is made where it is missing."""
    from graphiti_core import Graphiti
    from graphiti_core.cross_encoder.client import CrossEncoderClient
    from graphiti_core.driver.kuzu_driver import KuzuDriver
    from graphiti_core.llm_client import LLMConfig
    from graphiti_core.llm_client.openai_generic_client import OpenAIGenericClient

    class NoReranker(CrossEncoderClient):
        async def rank(self, query: str, passages: list[str]) -> list[tuple[str, float]]:
            raise NotImplementedError

    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(_empty_graph(), path)
    llm = OpenAIGenericClient(LLMConfig(api_key="none", model="loopback", base_url=language_model()))
    driver = KuzuDriver(str(path))
    # graphiti-core 0.31 reads it for a group that has a name, and Kuzu's driver lacks it.
    driver._database = ""
    return Graphiti(graph_driver=driver, llm_client=llm, embedder=embedder, cross_encoder=NoReranker())


async def add(graphiti: Any, text: str, group: str | None) -> Any:
    """Add an episode of one fact."""
    return await graphiti.add_episode(
        name="message",
        episode_body=text,
        source_description="chat",
        reference_time=datetime(2026, 1, 1, tzinfo=timezone.utc),
        group_id=group,
        previous_episode_uuids=[],
    )


def close_graph(graphiti: Any) -> None:
    """Close the Kuzu, so that it can be opened again."""
    graphiti.driver.client.close()
    graphiti.driver.db.close()
