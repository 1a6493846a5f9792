"""How a store is named, and where it is put when the configuration does not say."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hins_adapter_mem0.config import complete_config, store_key
from mem0.configs.base import MemoryConfig
from mem0.configs.vector_stores.qdrant import QdrantConfig

from hins_memory.config import Settings
from hins_memory.errors import ConfigError


@pytest.mark.parametrize(
    ("provider", "fields", "expected"),
    [
        ("qdrant", {"host": "db", "port": 6333, "path": "/tmp/qdrant", "api_key": "s3cret"}, "db:6333"),
        ("qdrant", {"url": "https://ann:s3cret@db.example:6334/q/?key=s3cret"}, "https://db.example:6334/q"),
        ("pgvector", {"host": "db", "port": 5432, "dbname": "m", "password": "s3cret"}, "db:5432/m"),
        ("pgvector", {"connection_string": "postgresql://ann:s3cret@db/m"}, "postgresql://db/m"),
        ("milvus", {"url": "ann:s3cret@db:19530?token=s3cret"}, "db:19530"),
        ("chroma", {"path": "/data/./chroma"}, "/data/chroma"),
        ("pinecone", {"api_key": "s3cret"}, "default"),
    ],
)
def test_a_store_is_named_without_its_secrets(provider: str, fields: dict[str, Any], expected: str) -> None:
    key = store_key(provider, SimpleNamespace(collection_name="c", **fields))
    assert key == f"mem0:{provider}:{expected}:c"


def test_stores_in_memory_are_not_one_another() -> None:
    from qdrant_client import QdrantClient

    one, other = QdrantClient(":memory:"), QdrantClient(":memory:")
    keys = {store_key("qdrant", QdrantConfig(client=client, path="unused")) for client in (one, other)}
    assert len(keys) == 2
    remote = QdrantClient(host="127.0.0.1", port=9, check_compatibility=False)
    assert store_key("qdrant", QdrantConfig(client=remote, path="unused")) == "mem0:qdrant:http://127.0.0.1:9:mem0"


@pytest.mark.parametrize(
    "config",
    [None, {}, {"vector_store": {"provider": "qdrant", "config": {"collection_name": "x"}}}, MemoryConfig()],
)
def test_the_default_place_is_the_projects(config: Any, settings: Settings) -> None:
    complete = complete_config(config, settings)
    assert complete.vector_store.config.path == str(settings.agent_folder("mem0") / "qdrant")
    assert complete.history_db_path == str(settings.agent_folder("mem0") / "history.db")


def test_a_place_that_is_named_is_kept(settings: Settings, tmp_path: Path) -> None:
    store = {"provider": "qdrant", "config": {"path": str(tmp_path / "q")}}
    given = {"vector_store": store, "history_db_path": str(tmp_path / "h.db")}
    for config in (given, MemoryConfig(**given)):
        complete = complete_config(config, settings)
        assert complete.vector_store.config.path == str(tmp_path / "q")
        assert complete.history_db_path == str(tmp_path / "h.db")


def test_what_is_no_configuration(settings: Settings) -> None:
    with pytest.raises(ConfigError, match="int"):
        complete_config(3, settings)
