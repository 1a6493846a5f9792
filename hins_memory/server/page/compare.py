"""One query against one owner's memories with two versions, side by side: places, scores, and why."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hins_memory.database.engine import open_database
from hins_memory.encoders.starter import STARTER
from hins_memory.errors import ConfigError, NotEnoughDataError
from hins_memory.log.capture import flush_all
from hins_memory.log.reader import LogReader
from hins_memory.registry.loader import shared_encoder
from hins_memory.types import Scope

if TYPE_CHECKING:
    from hins_memory.config import Settings
    from hins_memory.encoders.encoder import Encoder
    from hins_memory.registry.registry import Registry
    from hins_memory.types import Memory

__all__ = ["Comparer", "Hit", "Question", "Side"]

#: Memories of the owner that are searched, the latest.
MOST_MEMORIES = 500
#: Results of each version.
TOP = 10
_MAX_QUERY = 2000
_KEPT_ENCODERS = 2
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: a query, whose memories are searched, two versions, and the cosine that counts as found."""

    query: str
    owner: str
    versions: tuple[str, str]
    threshold: float


@dataclass(frozen=True, slots=True)
class Hit:
    """One result. `other` is its place with the other version; `words` are those of the query."""

    memory_id: str
    text: str
    cosine: float
    words: tuple[str, ...]
    other: int
    found: bool


@dataclass(frozen=True, slots=True)
class Side:
    """What one version returns, best first, and how it embeds."""

    version: str
    how: str
    hits: tuple[Hit, ...]


class Comparer:
    """Compares versions over the memories in a project's log. One comparison runs at a time.

    Args:
        settings: the project.
        registry: its versions.
    """

    def __init__(self, settings: Settings, registry: Registry) -> None:
        self._settings = settings
        self._registry = registry
        self._lock = threading.Lock()
        # Held, because the process lets go of an encoder that is not used.
        self._encoders: list[Encoder] = []

    def names(self) -> list[str]:
        """Return the versions that can be compared, the newest first."""
        return [*(one.id for one in reversed(self._registry.versions())), STARTER, "stock"]

    def compare(self, question: Question) -> tuple[list[Side], int, int]:
        """Return what the two versions return, how many memories were searched, and how many the owner has.

        Raises:
            ConfigError: the query or the owner cannot be used.
            NotEnoughDataError: the owner has no memories.
            HinsError: a version cannot be loaded, or the log cannot be read.
        """
        if not question.query.strip() or len(question.query) > _MAX_QUERY:
            raise ConfigError("There is no query, or it is too long.", f"Ask with 1 to {_MAX_QUERY} characters.")
        memories = self._memories(question.owner)
        searched = sorted(memories, key=lambda memory: memory.time)[-MOST_MEMORIES:]
        with self._lock:
            encoders = [self._encoder(version) for version in question.versions]
            self._encoders = encoders[-_KEPT_ENCODERS:]
            ranked = [_ranked(encoder, question.query, searched) for encoder in encoders]
        sides = [
            Side(encoder.version, self._how(encoder), tuple(_hits(question, searched, own, other)))
            for encoder, own, other in zip(encoders, ranked, reversed(ranked), strict=True)
        ]
        return sides, len(searched), len(memories)

    def _memories(self, owner: str) -> tuple[Memory, ...]:
        flush_all()
        try:
            scope = (Scope.from_key(owner) if "=" in owner else Scope(user=owner)).owner
        except ValueError as error:
            raise ConfigError(f"{owner!r} is not an owner.", "Write a user's name, or user=ann&agent=bot.") from error
        logs = list(LogReader(open_database(self._settings.database_url)).scope_logs([scope]))
        if not logs or not logs[0].memories:
            raise NotEnoughDataError("The log has no memories of this owner.", "Write it as `hins log show` does.")
        return logs[0].memories

    def _encoder(self, version: str) -> Encoder:
        if version in (STARTER, "stock"):
            return shared_encoder(version)
        return shared_encoder(self._registry.get(version).path)

    def _how(self, encoder: Encoder) -> str:
        if encoder.space != encoder.version:
            return f"a tower: it embeds queries, and searches the vectors of {encoder.space}"
        return "embeds queries and memories"


def _ranked(encoder: Encoder, query: str, memories: list[Memory]) -> list[tuple[int, float]]:
    """Return the places of the memories and their cosines, best first."""
    documents = encoder.encode([memory.text for memory in memories], role="document")
    cosines = (documents @ encoder.encode([query], role="query")[0]).tolist()
    return sorted(enumerate(cosines), key=lambda pair: (-pair[1], pair[0]))


def _hits(
    question: Question, memories: list[Memory], own: list[tuple[int, float]], other: list[tuple[int, float]]
) -> list[Hit]:
    asked = set(_WORD.findall(question.query.casefold()))
    places = {row: place for place, (row, _) in enumerate(other, 1)}
    found = []
    for row, cosine in own[:TOP]:
        memory = memories[row]
        words = tuple(sorted(asked & set(_WORD.findall(memory.text.casefold()))))
        found.append(Hit(memory.id, memory.text, cosine, words, places[row], cosine >= question.threshold))
    return found
