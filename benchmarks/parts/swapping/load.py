"""A large Mem0 to swap: filled in bulk, used from several threads all the while, checked call by call."""

from __future__ import annotations

import hashlib
import random
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from hins_adapter_mem0.attaching import agent_of

from hins_memory.errors import HinsError
from hins_memory.plugins.protocols import Record
from parts.common.screen import progress

if TYPE_CHECKING:
    from hins_memory.encoders.encoder import Encoder
    from hins_memory.plugins.protocols import Agent, Index
    from hins_memory.registry.registry import EncoderVersion, Registry

__all__ = [
    "ASKED_FOR",
    "PER_USER",
    "Call",
    "Load",
    "agent_behind",
    "check_store",
    "fill_index",
    "fill_store",
    "memory_text",
    "percentile",
    "shaken_version",
    "user_of",
]

#: the first N memories are asked for by searches
ASKED_FOR = 5_000
#: memories of one user: what a search filters for
PER_USER = 100
_BULK = 1024
_THINGS = ("cello", "boat", "tram", "novel", "tomato plant", "bicycle", "cat", "oboe", "walnut tree", "camera", "kite")
_PLACES = ("Oslo", "Lisbon", "Porto", "Bergen", "Turku", "Ghent", "Kyoto", "Accra", "Lima")
_VERBS = ("bought", "sold", "repaired", "lost", "found", "painted", "lent out", "photographed")
# A query that is a stored text finds that text with a cosine of 1, unless query and index are of two encoders.
_SAME = 0.99


def agent_behind(memory: Any) -> Agent:
    """Return what is swapped of a Mem0 memory."""
    agent = agent_of(memory)
    if agent is None:
        raise HinsError("The memory is not attached.")
    return agent


def memory_text(number: int) -> str:
    """Return the text of one memory; no two are the same."""
    thing, place = _THINGS[number % 11], _PLACES[number // 11 % 9]
    return f"On day {number} she {_VERBS[number // 99 % 8]} a {thing} in {place} and told her friends about it."


def user_of(number: int) -> str:
    """Return the user whose memory it is."""
    return f"user{number // PER_USER}"


def _row(number: int) -> Record:
    text = memory_text(number)
    payload = {
        "data": text,
        "hash": hashlib.md5(text.encode(), usedforsecurity=False).hexdigest(),
        "text_lemmatized": text.lower(),
        "user_id": user_of(number),
        "role": "user",
        "created_at": "2026-01-01T00:00:00+00:00",
        "updated_at": "2026-01-01T00:00:00+00:00",
    }
    return Record(str(uuid.UUID(int=number + 1)), text, payload)


def fill_store(memory: Any, count: int, seed: int = 0) -> None:
    """Store `count` memories and some entities without the cost of one `add` each."""
    encoder: Encoder = memory.embedding_model.encoder
    memories, entities = agent_behind(memory).live_indexes()
    fill_index(memories, encoder, count, seed)
    names = [f"{thing} of {place}" for thing in _THINGS for place in _PLACES]
    rows = [
        Record(str(uuid.UUID(int=number + 1)), name, {"data": name, "entity_type": "THING", "user_id": "user0"})
        for number, name in enumerate(names)
    ]
    entities.upsert(rows, encoder.encode(names, role="document"))


def fill_index(index: Index, encoder: Encoder, count: int, seed: int = 0) -> None:
    """Store `count` memories.

    The vectors of the first 5,000, which searches ask for, are those of their texts; the others get near copies of
    them, each of another user's.
    """
    known = encoder.encode([memory_text(number) for number in range(min(count, ASKED_FOR))], role="document")
    draw = np.random.default_rng(seed)
    for start in progress(range(0, count, _BULK), "filling the store"):
        numbers = np.arange(start, min(start + _BULK, count))
        vectors = known[numbers % len(known)]
        copies = numbers >= len(known)
        vectors[copies] += draw.normal(0, 0.02, (int(copies.sum()), vectors.shape[1])).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        index.upsert([_row(int(number)) for number in numbers], vectors)


def shaken_version(registry: Registry, folder: Path, seed: int) -> EncoderVersion:
    """Register an encoder of the same size in another space: the stock one with its word embeddings shaken."""
    import torch

    from hins_memory.encoders.encoder import Encoder

    model = Encoder.load().model
    torch.manual_seed(seed)
    with torch.no_grad():
        words = model[0].auto_model.embeddings.word_embeddings.weight
        words.add_(torch.randn_like(words) * words.std())
    model.save(str(folder))
    return registry.add(folder, {"base": "stock", "mode": "benchmark", "seed": seed})


@dataclass(frozen=True, slots=True)
class Call:
    """One search: when it began, how long it took, and what was wrong with it ("" for nothing)."""

    started: float
    seconds: float
    fault: str


@dataclass
class Load:
    """Threads that search and one that adds, updates and deletes, from `with` to its end.

    Args:
        memory: the Mem0 memory.
        count: how many memories `fill_store` stored.
        searchers: how many threads search.
        pause: seconds that each thread waits between two calls, as a user does.
    """

    memory: Any
    count: int
    searchers: int
    pause: float
    seed: int = 0
    calls: list[Call] = field(default_factory=list)
    written: dict[str, str] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    write_failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        jobs: list[tuple[Callable[[random.Random, int], None], int]] = [
            (self._search, n) for n in range(self.searchers)
        ]
        jobs.append((self._write, self.searchers))
        self._threads = [threading.Thread(target=self._repeat, args=job) for job in jobs]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _repeat(self, work: Callable[[random.Random, int], None], who: int) -> None:
        draw, number = random.Random(f"{self.seed} {who}"), 0
        while not self._stop.wait(self.pause * draw.uniform(0.5, 1.5)):
            work(draw, number)
            number += 1

    def _search(self, draw: random.Random, number: int) -> None:
        wanted = draw.randrange(min(self.count, ASKED_FOR))
        text, fault = memory_text(wanted), ""
        started = time.perf_counter()
        try:
            filters = {"user_id": user_of(wanted)}
            found = self.memory.search(text, filters=filters, threshold=0.0, explain=True)["results"]
        except Exception as error:
            fault = f"failed: {type(error).__name__}: {error}"
        seconds = time.perf_counter() - started
        # A store that finds keywords too makes its score of both.
        score = found[0]["score_details"]["semantic_score"] if not fault and found else 0.0
        if not fault and (not found or found[0]["memory"] != text or score < _SAME):
            best = f"{found[0]['memory']!r} at {score:.3f}" if found else "nothing"
            fault = f"mixed: {text!r} found {best}"
        self.calls.append(Call(started, seconds, fault))

    def _write(self, draw: random.Random, number: int) -> None:
        try:
            text = f"Note number {number} of the writer is about {draw.choice(_THINGS)}s."
            (item,) = self.memory.add(text, user_id="writer", infer=False)["results"]
            if number % 3 == 1:
                text += " It was changed later."
                self.memory.update(item["id"], text)
            if number % 3 == 2:
                self.memory.delete(item["id"])
                self.deleted.add(item["id"])
            else:
                self.written[item["id"]] = text
        except Exception as error:
            self.write_failures.append(f"{type(error).__name__}: {error}")


def check_store(memory: Any, load: Load, seed: int) -> tuple[int, int]:
    """Return how many acknowledged writes are not there as they were left, and how many vectors are of another encoder.

    All writes and a sample of 1,000 other memories are looked at in what serves now.

    Raises:
        HinsError: memories that were not changed are missing.
    """
    index = agent_behind(memory).live_indexes()[0]
    encoder: Encoder = memory.embedding_model.encoder
    there = {record.id: record.text for record in index.get(list(load.written))}
    lost = sum(there.get(id_) != text for id_, text in load.written.items())
    lost += len(index.get(sorted(load.deleted)))
    expected = load.count + len(load.written) - len(load.write_failures)
    if not load.write_failures and index.count() != expected:
        raise HinsError(f"The store holds {index.count()} memories instead of {expected}.")
    sample = random.Random(seed).sample(range(load.count), min(1000, load.count))
    texts = {str(uuid.UUID(int=number + 1)): memory_text(number) for number in sample} | there
    stored = index.vectors(list(texts))
    vectors = encoder.encode(list(texts.values()), role="document")
    wrong = sum(
        id_ not in stored or float(np.dot(stored[id_], vector)) < _SAME
        for id_, vector in zip(texts, vectors, strict=True)
    )
    return lost, wrong


def percentile(seconds: list[float], share: float) -> float:
    """Return a percentile in milliseconds."""
    return float(np.percentile(seconds, share)) * 1000 if seconds else float("nan")
