"""How the contract suite uses each framework."""

from __future__ import annotations

import json
import sys
import uuid
from pathlib import Path
from typing import Any

from hins_adapter_mem0.plugin import plugin as mem0_plugin
from hins_adapter_memoryos.plugin import plugin as memoryos_plugin

from hins_memory.sdk import AgentTurn
from hins_memory.testing import AdapterDriver, Found, Place

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "docs" / "examples" / "hins-adapter-notebook"))

from hins_adapter_notebook import plugin as notebook_plugin


class Mem0Driver(AdapterDriver):
    """Mem0's own memory on embedded Qdrant."""

    plugin = mem0_plugin
    users = ("ann", 7, "7.5", True, uuid.UUID(int=5), "ann/bob", "user=ann&tenant=b", "a%2Fb", "李🍵")

    def _config(self, place: Place) -> Any:
        from hins_adapter_mem0.embedding import register_embedder
        from mem0.configs.base import MemoryConfig
        from mem0.embeddings.configs import EmbedderConfig

        register_embedder()
        place.folder.mkdir(parents=True, exist_ok=True)
        store = {
            "collection_name": "mem0",
            "path": str(place.folder / "qdrant"),
            "embedding_model_dims": 32,
            "on_disk": True,
        }
        config = MemoryConfig(
            vector_store={"provider": "qdrant", "config": store},
            llm={"provider": "openai", "config": {"api_key": "unused", "openai_base_url": "http://127.0.0.1:9/v1"}},
            history_db_path=str(place.folder / "history.db"),
        )
        config.embedder = EmbedderConfig.model_construct(provider="hins", config={"model": str(place.base)})
        return config

    def make(self, place: Place) -> Any:
        import mem0

        return mem0.Memory(self._config(place))

    def add(self, memory: Any, text: str, user: Any) -> str:
        return str(memory.add(text, user_id=user, infer=False)["results"][0]["id"])

    def search(self, memory: Any, query: str, user: Any, limit: int) -> Found:
        found = memory.search(query, filters={"user_id": user}, top_k=limit, threshold=0.0)
        return [(item["id"], item["memory"]) for item in found["results"]]

    def update(self, memory: Any, id_: str, text: str, user: Any) -> None:
        memory.update(id_, text)

    def delete(self, memory: Any, id_: str, user: Any) -> None:
        memory.delete(id_)

    def close(self, memory: Any) -> None:
        memory.close()
        memory.__dict__["vector_store"].client.close()

    async def make_async(self, place: Place) -> Any:
        import mem0

        return mem0.AsyncMemory(self._config(place))

    async def add_async(self, memory: Any, text: str, user: Any) -> str:
        return str((await memory.add(text, user_id=user, infer=False))["results"][0]["id"])

    async def search_async(self, memory: Any, query: str, user: Any, limit: int) -> Found:
        found = await memory.search(query, filters={"user_id": user}, top_k=limit, threshold=0.0)
        return [(item["id"], item["memory"]) for item in found["results"]]


class MemoryosDriver(AdapterDriver):
    """MemoryOS's long-term memory of what a user said, which needs no language model."""

    plugin = memoryos_plugin
    # MemoryOS makes folders of them.
    users = ("ann", "7", "user=ann&tenant=b", "a%2Fb", "李🍵")
    one_user = True
    shared = True

    def make(self, place: Place) -> Any:
        import memoryos

        from hins_memory.registry.loader import shared_encoder

        utils = sys.modules[memoryos.Memoryos.__module__.replace("memoryos.memoryos", "memoryos.utils")]
        name = "all-MiniLM-L6-v2"
        for key in (name, json.dumps({"model_name": name})):
            utils._model_cache[key] = shared_encoder(place.base).model
        return memoryos.Memoryos(
            user_id=place.user,
            openai_api_key="unused",
            openai_base_url="http://127.0.0.1:9/v1",
            data_storage_path=str(place.folder),
        )

    def add(self, memory: Any, text: str, user: Any) -> str:
        from hins_adapter_memoryos import memory_id

        memory.user_long_term_memory.add_user_knowledge(text)
        return memory_id(memory.user_long_term_memory.get_user_knowledge()[-1])

    def search(self, memory: Any, query: str, user: Any, limit: int) -> Found:
        from hins_adapter_memoryos import memory_id

        found = memory.retriever.retrieve_context(query, user_id=user, top_k_knowledge=limit)
        return [(memory_id(entry), entry["knowledge"]) for entry in found["retrieved_user_knowledge"]]


class NotebookDriver(AdapterDriver):
    """The example of docs/adapters.md."""

    plugin = notebook_plugin
    one_user = True
    shared = True

    def make(self, place: Place) -> Any:
        from notebook import Notebook

        from hins_memory.registry.loader import shared_encoder

        place.folder.mkdir(parents=True, exist_ok=True)
        name = uuid.uuid5(uuid.NAMESPACE_URL, str(place.user)).hex
        return Notebook(str(place.folder / f"{name}.db"), place.user, shared_encoder(place.base).encode)

    def add(self, memory: Any, text: str, user: Any) -> str:
        return str(memory.add(text))

    def search(self, memory: Any, query: str, user: Any, limit: int) -> Found:
        return [(id_, text) for id_, text, _ in memory.search(query, limit)]

    def turn(self, memory: Any) -> AgentTurn:
        turn: AgentTurn = memory.hins.turn()
        return turn

    def close(self, memory: Any) -> None:
        self.plugin.hins_detach(memory)
