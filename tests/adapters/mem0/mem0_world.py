"""What several tests of the Mem0 adapter need: conversations, Mem0's own memory as a peer, the log's events."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mem0
from hins_adapter_mem0.embedding import register_embedder
from mem0.configs.base import MemoryConfig
from mem0.embeddings.configs import EmbedderConfig

from hins_memory.config import Settings
from hins_memory.database.engine import open_database
from hins_memory.log.reader import LogReader
from hins_memory.types import ScopeLog

ANN = {"user_id": "ann"}
FACTS = (
    "Ann plays the cello in an amateur orchestra.",
    "Ann moved to Oslo in March 2021. 🇳🇴",
    "安在奥斯陆有一只名叫雪球的猫。",
    "Ann is allergic to walnuts and carries a pen.",
    "Ann's brother Emil repairs wooden boats.",
    "Ann reads detective novels on the tram.",
)


def own_config(folder: Path, **changes: Any) -> MemoryConfig:
    """A configuration of Mem0's own memory with the stock encoder, and an LLM that is never reached."""
    register_embedder()
    store = {"collection_name": "mem0", "path": str(folder / "qdrant"), "embedding_model_dims": 384, "on_disk": True}
    config = MemoryConfig(
        vector_store={"provider": "qdrant", "config": store},
        llm={"provider": "openai", "config": {"api_key": "unused", "openai_base_url": "http://127.0.0.1:9/v1"}},
        history_db_path=str(folder / "history.db"),
        **changes,
    )
    config.embedder = EmbedderConfig.model_construct(provider="hins", config={})
    return config


def own_memory(folder: Path, **changes: Any) -> Any:
    folder.mkdir(parents=True, exist_ok=True)
    return mem0.Memory(own_config(folder, **changes))


def own_async_memory(folder: Path) -> Any:
    folder.mkdir(parents=True, exist_ok=True)
    return mem0.AsyncMemory(own_config(folder))


def fill(memory: Any, user: str = "ann", facts: tuple[str, ...] = FACTS) -> list[str]:
    """Add facts as they are and return their ids."""
    ids = []
    for fact in facts:
        ids += [item["id"] for item in memory.add(fact, user_id=user, infer=False)["results"]]
    return ids


def texts(found: Any) -> list[str]:
    return [item["memory"] for item in found["results"]]


def plain(items: Any) -> Any:
    """Results without what differs from run to run: ids and times."""
    skipped = {"id", "created_at", "updated_at", "memory_id", "retrieval_id"}
    if isinstance(items, dict):
        return {key: plain(value) for key, value in items.items() if key not in skipped}
    if isinstance(items, list):
        return [plain(item) for item in items]
    return round(items, 5) if isinstance(items, float) else items


def logged(settings: Settings) -> list[ScopeLog]:
    """Everything that the log holds, an owner at a time."""
    return list(LogReader(open_database(settings.database_url)).scope_logs())
