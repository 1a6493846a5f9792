"""The loop on what a LangGraph store recorded: packaged conversations are played through a graph's store."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
from hins_adapter_langgraph import HinsEmbeddings, HinsStore
from langgraph.store.memory import InMemoryStore

from hins_memory.config import Settings
from hins_memory.data.sample_conversations import load_sample
from hins_memory.log.capture import flush_all
from hins_memory.loop.pipeline import LoopSettings, Pipeline
from hins_memory.training import TrainSettings

pytestmark = pytest.mark.slow

RECORDED, UNSEEN = load_sample()[:-3], load_sample()[-3:]


def store_of(folder: Path) -> InMemoryStore:
    """A new store whose index embeds with an encoder."""
    embeddings = HinsEmbeddings(folder)
    return InMemoryStore(index={"dims": embeddings.dims, "embed": embeddings, "fields": ["text"]})


def fill(store: Any, conversation: Any) -> tuple[str, str]:
    """Put the turns of a conversation; return their namespace."""
    namespace = ("memories", conversation.id)
    for turn in conversation.turns:
        store.put(namespace, turn.id, {"text": f"{turn.speaker}: {turn.text}"})
    return namespace


def ndcg(store: Any) -> float:
    """The mean nDCG@10 of the unseen conversations' questions, by the store's own search."""
    values = []
    for conversation in UNSEEN:
        namespace = fill(store, conversation)
        for asked in conversation.questions:
            keys = [item.key for item in store.search(namespace, query=asked.question, limit=10)]
            gain = sum(1 / math.log2(rank + 2) for rank, key in enumerate(keys) if key in asked.evidence)
            best = sum(1 / math.log2(rank + 2) for rank in range(min(10, len(asked.evidence))))
            values.append(gain / best)
    return mean(values)


def test_what_a_store_recorded_trains_an_encoder_that_searches_it(shallow_base: Path, settings: Settings) -> None:
    store = HinsStore(store_of(shallow_base), namespace=("memories", "{user}"), settings=settings)
    for conversation in RECORDED:
        namespace = fill(store, conversation)
        for asked in conversation.questions:
            with store.turn() as turn:
                assert len(store.search(namespace, query=asked.question, limit=20)) == 20
                turn.answered(asked.answer)
    assert flush_all()
    pipeline = Pipeline(settings, store, loop=LoopSettings(train=TrainSettings(mode="query")))
    version, before = pipeline.train(), ndcg(store)
    pipeline.swap(version.id, force=True)
    # The shallow encoder finds little, so this says that the whole way works, not how much is to be gained.
    assert ndcg(store) > before
    store.close()
