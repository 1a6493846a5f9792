"""Every vector store that the suite runs on: how Mem0 is told to use it, and what several tests need of it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from hins_adapter_mem0 import Memory
from hins_adapter_mem0.attaching import agent_of

from hins_memory.config import Settings
from hins_memory.encoders.encoder import Encoder
from hins_memory.registry.registry import Registry

STORES = ("qdrant", "faiss", "chroma", "chroma-server", "pgvector")
SERVERS = ("chroma-server", "pgvector")
EMBEDDED = ("qdrant", "faiss", "chroma")
ANN = {"user_id": "ann"}
SUBJECTS = ("Ann", "Bob", "安娜", "Dai", "Eva", "Farid", "Gül")
FACTS = ("plays the cello", "grows tomatoes", "repairs bicycles", "lives in Lisbon", "likes tea 🍵", "学习法语")
#: small, so that a few dozen memories are several batches
BATCH = 8


def text_of(number: int) -> str:
    return f"{SUBJECTS[number % 7]} {FACTS[number % 6]}, said on day {number}."


@dataclass
class StoreWorld:
    """One vector store, and a project of its own."""

    name: str
    vector_store: dict[str, Any]
    settings: Settings
    #: the encoder that a new store begins with
    base: Path
    #: whether several processes can have it open
    shared: bool
    #: whether its payloads may hold lists of anything
    nested: bool = True
    opened: list[Any] = field(default_factory=list)

    def __getstate__(self) -> dict[str, Any]:
        # A second process opens the store itself.
        return {**self.__dict__, "opened": []}

    def open(self) -> Any:
        memory = Memory({"vector_store": self.vector_store}, settings=self.settings)
        self.opened.append(memory)
        return memory

    def close(self) -> None:
        while self.opened:
            self.opened.pop().close()
        if self.name == "milvus":
            # Milvus Lite holds its folder until the process ends, or until this.
            from milvus_lite.server_manager import server_manager_instance

            server_manager_instance.release_all()

    def load(self, version: str) -> Encoder:
        return Encoder.load(Registry(self.settings).get(version).path if version.startswith("v0") else self.base)


def agent(memory: Any) -> Any:
    found = agent_of(memory)
    assert found is not None
    return found


def fill(memory: Any, count: int) -> list[str]:
    """Add facts of Ann's as they are, and two entities; return the ids of the facts."""
    ids = []
    for number in range(count):
        metadata = {"day": number + 0.5, "tag": "é🍵", "flag": number % 2 == 0}
        (item,) = memory.add(text_of(number), user_id="ann", metadata=metadata, infer=False)["results"]
        ids.append(item["id"])
    for name, id_ in (("cello", ids[0]), ("Lisbon", ids[-1])):
        memory._upsert_entity(name, "THING", id_, ANN)
    return ids


def rows(index: Any) -> dict[str, str]:
    """Every payload as JSON text, by id."""
    return {
        record.id: json.dumps(dict(record.payload), sort_keys=True) for page in index.pages(BATCH) for record in page
    }


def assert_in_one_space(memory: Any) -> None:
    """Every stored vector, of memories and entities, is what the serving encoder makes of its text."""
    encoder = memory.embedding_model.encoder
    assert agent(memory).encoder_version == encoder.version
    for index in agent(memory).live_indexes():
        texts = {record.id: record.text for page in index.pages(BATCH) for record in page}
        vectors = index.vectors(list(texts))
        assert vectors.keys() == texts.keys()
        for id_, expected in zip(texts, encoder.encode(list(texts.values()), role="document"), strict=True):
            assert float(np.dot(expected, vectors[id_])) > 0.999
