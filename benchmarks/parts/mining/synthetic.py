"""What benchmarks/mining.py measures on: synthetic logs of many users, cheap vectors, and one run in a process."""

from __future__ import annotations

import csv
import gc
import hashlib
import resource
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hins_memory.errors import ConfigError
from hins_memory.types import Answer, Feedback, Memory, RankedMemory, Retrieval, Scope, ScopeLog

__all__ = ["Chat", "Measured", "Plan", "WordVectors", "chats", "measured", "synthetic_logs"]

# As long as all-MiniLM-L6-v2's vectors.
_DIM = 384
_CHATS_A_USER = 4
_TOP_K = 20
_BUCKETS = 1 << 15
_CACHED = 50_000
_HOUR = 3_600.0
_THINGS = [
    "boat",
    "cello",
    "garden",
    "kettle",
    "lantern",
    "museum",
    "orchard",
    "pigeon",
    "quilt",
    "river",
    "saddle",
    "tractor",
    "violin",
    "window",
]
_DEEDS = ["bought", "painted", "repaired", "lost", "borrowed", "described", "cleaned", "sold", "drew", "moved"]
_PLACES = ["Ghent", "Laboe", "Quito", "Lyon", "Osaka", "Tartu", "Leeds", "Porto", "Cusco", "Narvik"]


@dataclass(frozen=True, slots=True)
class Chat:
    """A conversation of two: lines of (speaker, text), and facts about each speaker, (speaker, text)."""

    lines: tuple[tuple[str, str], ...]
    facts: tuple[tuple[str, str], ...]


class WordVectors:
    """Random-projection bags of words: vectors that cost almost nothing, so that mining itself is measured.

    It has what the miner asks of an encoder (`encode`, `version`) and what sentence-transformers' miner asks of a
    model, so that both see the same vectors.
    """

    version = "random projection of words"
    device = "cpu"

    def __init__(self) -> None:
        self._table = np.random.default_rng(7).normal(size=(_BUCKETS, _DIM)).astype(np.float32)
        self._places: OrderedDict[str, int] = OrderedDict()
        #: processor seconds spent here, which are not mining
        self.seconds = 0.0

    def encode(self, texts: Sequence[str], *, role: str = "document", **_: Any) -> NDArray[np.float32]:
        """Return unit vectors, shape (len(texts), _DIM)."""
        started = time.process_time()
        vectors = np.empty((len(texts), _DIM), dtype=np.float32)
        for row, text in enumerate(texts):
            vectors[row] = self._table[[self._place(word) for word in text.lower().split() or [""]]].sum(axis=0)
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
        self.seconds += time.process_time() - started
        return vectors

    def _place(self, word: str) -> int:
        place = self._places.get(word)
        if place is None:
            place = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=4).digest(), "big") % _BUCKETS
            self._places[word] = place
            if len(self._places) > _CACHED:
                self._places.popitem(last=False)
        return place

    def encode_document(self, texts: Sequence[str], **options: Any) -> NDArray[np.float32]:
        """As sentence-transformers' models have it."""
        return self.encode(texts, role="document", **options)

    def encode_query(self, texts: Sequence[str], **options: Any) -> NDArray[np.float32]:
        """As sentence-transformers' models have it."""
        return self.encode(texts, role="query", **options)

    def similarity_pairwise(self, one: Any, other: Any) -> Any:
        """As sentence-transformers' models have it."""
        from sentence_transformers.util import pairwise_dot_score

        return pairwise_dot_score(one, other)

    def get_embedding_dimension(self) -> int:
        """As sentence-transformers' models have it."""
        return _DIM


def chats(path: Path | None) -> list[Chat]:
    """Return the conversations of a Synthetic-Persona-Chat file, or generated ones where there is no file.

    Raises:
        ConfigError: the file is missing or has not the three columns.
    """
    if path is None:
        return [_generated(number) for number in range(500)]
    if not path.is_file():
        raise ConfigError(f"There is no file {path}.", "Leave --data out to use generated text.")
    with path.open(encoding="utf-8", newline="") as stream:
        found = [_persona_chat(row) for row in csv.reader(stream) if len(row) == 3]
    found = [chat for chat in found if chat.lines and chat.facts]
    if not found:
        raise ConfigError(f"{path} holds no conversations.", "Name a CSV file of Synthetic-Persona-Chat.")
    return found


def _persona_chat(row: Sequence[str]) -> Chat:
    lines = []
    for line in row[2].splitlines():
        speaker, found, text = line.partition(": ")
        if found and speaker in ("User 1", "User 2") and text.strip():
            lines.append((speaker, text.strip()))
    facts = [(f"User {who + 1}", fact.strip()) for who in (0, 1) for fact in row[who].splitlines() if fact.strip()]
    return Chat(tuple(lines), tuple(facts))


def _generated(number: int) -> Chat:
    rng = np.random.default_rng([11, number])
    lines: list[tuple[str, str]] = []
    for place in range(22):
        deed, thing, where = rng.choice(_DEEDS), rng.choice(_THINGS), rng.choice(_PLACES)
        rest = " ".join(rng.choice(_THINGS, size=6))
        lines.append((f"User {place % 2 + 1}", f"I {deed} a {thing} in {where} {place} days ago beside {rest}."))
    facts = [(speaker, f"{speaker} {text[2:60]}") for speaker, text in lines[:10]]
    return Chat(tuple(lines), tuple(facts))


@dataclass(frozen=True, slots=True)
class Plan:
    """What synthetic logs hold.

    Args:
        memories: how many memories in all, one a line.
        users: how many users share them; 0 means one for every four conversations.
        answers: whether outcomes are answers rather than feedback.
        seed: of the order of the conversations.
    """

    memories: int
    users: int = 0
    answers: bool = False
    seed: int = 0


def synthetic_logs(source: Sequence[Chat], plan: Plan, model: WordVectors) -> Iterator[ScopeLog]:
    """Yield the logs of many users; nothing but the user at hand is held.

    Each fact about a speaker is searched for in its conversation, and the speaker's own nearest line is the positive.
    The conversations are used again as often as needed, each time under new names, so that no two texts are equal.

    Args:
        source: the conversations.
        plan: how many memories, and of whom.
        model: gives the vectors that the searches are made with.
    """
    rng = np.random.default_rng(plan.seed)
    left, number = plan.memories, 0
    share = -(-plan.memories // plan.users) if plan.users else 0
    while left > 0:
        events = _Events(Scope(user=f"user{number}"), [], [], [], [])
        talks = 0
        while left > 0 and (len(events.memories) < share if share else talks < _CHATS_A_USER):
            chat = source[int(rng.integers(len(source)))]
            _play(chat, f"{number}x{talks}", left, events, model, plan.answers)
            talks += 1
            left = left - min(left, len(chat.lines))
        yield ScopeLog(
            events.scope,
            memories=tuple(events.memories),
            retrievals=tuple(events.retrievals),
            answers=tuple(events.answers),
            feedback=tuple(events.feedback),
        )
        number += 1


@dataclass(frozen=True, slots=True)
class _Events:
    scope: Scope
    memories: list[Memory]
    retrievals: list[Retrieval]
    answers: list[Answer]
    feedback: list[Feedback]


def _play(chat: Chat, talk: str, most: int, events: _Events, model: WordVectors, answers: bool) -> None:
    """Add one conversation to a user's events."""
    names = {"User 1": f"Ann{talk}", "User 2": f"Bo{talk}"}
    start = float(len(events.memories)) * 60.0
    stored = [
        Memory(f"{talk}/{place}", events.scope, talk, f"{names[who]}: {text}", names[who], time=start + place)
        for place, (who, text) in enumerate(chat.lines[:most])
    ]
    queries = [f"{names[who]}: {fact}" for who, fact in chat.facts]
    scores = model.encode(queries) @ model.encode([memory.text for memory in stored]).T
    events.memories.extend(stored)
    for place, (who, _) in enumerate(chat.facts):
        ranked = np.argsort(-scores[place], kind="stable")[:_TOP_K].tolist()
        own = [row for row in ranked if stored[row].speaker == names[who]]
        if not own:
            continue
        results = tuple(RankedMemory(stored[row].id, stored[row].text, float(scores[place, row])) for row in ranked)
        asked = 1e6 + len(events.retrievals) * _HOUR
        retrieval = Retrieval(events.scope, queries[place], results, id=f"{talk}:{place}", time=asked)
        events.retrievals.append(retrieval)
        positive = stored[own[0]]
        if answers:
            events.answers.append(Answer(retrieval.id, positive.text.partition(": ")[2], time=asked + 1))
        else:
            events.feedback.append(Feedback(positive.id, "POSITIVE", retrieval.id, time=asked + 1))


@dataclass(frozen=True, slots=True)
class Measured:
    """Processor seconds, and the process's resident memory in MiB: before, and its peak."""

    seconds: float
    before: float
    peak: float


def measured(work: Callable[[], None]) -> Measured:
    """Run `work` and measure it; a garbage collection in it does not look through what was there before.

    One that did would take as long as a tenth of the work on 10,000 memories, and which miner it falls to is chance.
    """
    gc.collect()
    gc.freeze()
    before = _resident("VmRSS")
    started = time.process_time()
    work()
    return Measured(time.process_time() - started, before, _resident("VmHWM"))


def _resident(name: str) -> float:
    """Return a figure of resident memory in MiB; where there is no /proc, the peak."""
    status = Path("/proc/self/status")
    if status.is_file():
        found = next(line for line in status.read_text().splitlines() if line.startswith(f"{name}:"))
        return int(found.split()[1]) / 2**10
    # macOS counts in bytes. (Linux's own ru_maxrss would count what the parent had before exec.)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
