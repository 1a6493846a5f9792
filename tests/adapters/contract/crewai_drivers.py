"""How the contract suite uses CrewAI's memory."""

from __future__ import annotations

from typing import Any

from hins_adapter_crewai.plugin import plugin as crewai_plugin

from hins_memory.sdk import AgentTurn
from hins_memory.testing import AdapterDriver, Found, Place


class CrewAIDriver(AdapterDriver):
    """A `Memory` on LanceDB, with an encoder that hins-memory knows nothing of, and without a language model."""

    plugin = crewai_plugin
    users = ("ann", "7", "ann/bob", "user=ann&tenant=b", "a%2Fb", "李🍵", "None")
    shared = True

    def make(self, place: Place) -> Any:
        from crewai import LLM
        from crewai.memory.unified_memory import Memory

        from hins_memory.registry.loader import shared_encoder

        return Memory(
            llm=LLM(model="openai/none", api_key="unused", base_url="http://127.0.0.1:9/v1"),
            embedder=lambda texts: shared_encoder(place.base).encode(texts).tolist(),
            storage=str(place.folder),
            # Alike texts would be merged by the language model.
            consolidation_threshold=1.0,
            exploration_budget=0,
        )

    def _of(self, user: Any) -> dict[str, Any]:
        return {"scope": f"/{user.encode().hex()}", "source": user}

    def add(self, memory: Any, text: str, user: Any) -> str:
        kept = memory.remember(text, categories=[], importance=0.5, **self._of(user))
        return str(kept.id)

    def search(self, memory: Any, query: str, user: Any, limit: int) -> Found:
        found = memory.recall(query, limit=limit, depth="shallow", **self._of(user))
        return [(one.record.id, one.record.content) for one in found]

    def update(self, memory: Any, id_: str, text: str, user: Any) -> None:
        memory.update(id_, content=text)

    def delete(self, memory: Any, id_: str, user: Any) -> None:
        memory.forget(record_ids=[id_])

    async def make_async(self, place: Place) -> Any:
        return self.make(place)

    async def add_async(self, memory: Any, text: str, user: Any) -> str:
        kept = await memory.aremember(text, categories=[], importance=0.5, **self._of(user))
        return str(kept.id)

    async def search_async(self, memory: Any, query: str, user: Any, limit: int) -> Found:
        found = await memory.arecall(query, limit=limit, depth="shallow", **self._of(user))
        return [(one.record.id, one.record.content) for one in found]

    def turn(self, memory: Any) -> AgentTurn:
        turn: AgentTurn = memory.hins.turn()
        return turn

    def close(self, memory: Any) -> None:
        self.plugin.hins_detach(memory)
        memory.close()
