"""What an adapter implements so that an agent's stored vectors can be rebuilt and flipped.

The core never imports an agent framework: it sees an agent only through these protocols.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from hins_memory.errors import AgentError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hins_memory.types import Scope

__all__ = ["Agent", "Index", "Ranking", "Record", "check_agent", "ranking_of", "same_record", "sample_of"]


@dataclass(frozen=True, slots=True)
class Record:
    """One stored row of an index: its id, the text that its vector encodes, and its payload, untouched."""

    id: str
    text: str
    payload: Mapping[str, Any]


@runtime_checkable
class Index(Protocol):
    """One vector index of an agent (Mem0 has two: memories and entities).

    Where a page cannot be had without reading everything, it may have ``sample(count) -> list[Record]``, which returns
    at most `count` records, whichever are quick to get.
    """

    @property
    def name(self) -> str:
        """The name under which the agent's store knows it, e.g. a collection name."""

    @property
    def kind(self) -> str:
        """What it holds, e.g. ``memories`` or ``entities``; pairs a live index with its shadow."""

    def count(self) -> int:
        """Return the number of records."""

    def pages(self, size: int) -> Iterator[list[Record]]:
        """Yield all records, at most `size` at a time; a record present throughout is yielded once."""

    def get(self, ids: Sequence[str]) -> list[Record]:
        """Return the records of those ids that exist, in any order."""

    def vectors(self, ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Return the stored unit vectors by id, each of shape (dim,); missing ids are left out."""

    def upsert(self, records: Sequence[Record], vectors: NDArray[np.float32]) -> None:
        """Write records with their vectors, of shape (len(records), dim)."""

    def delete(self, ids: Iterable[str]) -> None:
        """Delete records; ids that do not exist are ignored."""

    def drop(self) -> None:
        """Delete the index itself with everything in it."""


@runtime_checkable
class Ranking(Protocol):
    """How a framework ranks what a search finds, where more counts than the cosines: words, entities, time.

    It replays searches of the live store with the cosines of any encoder; its other signals stay what they are there.
    """

    @property
    def signals(self) -> tuple[str, ...]:
        """What counts beside the cosine, e.g. ``("keywords", "entities")``."""

    @property
    def candidates(self) -> int:
        """How many memories with the best cosines a search needs at most."""

    @property
    def takes_keyword_weight(self) -> bool:
        """Whether an encoder version may say how much keywords count beside its cosines; see `rank`."""

    def rank(
        self,
        owner: Scope,
        query: str,
        found: Sequence[Sequence[tuple[str, float]]],
        weights: Sequence[float | None] | None = None,
    ) -> Sequence[Sequence[str]]:
        """Rank what several encoders find for one query.

        Args:
            owner: whose memories are searched.
            query: what is asked.
            found: for each encoder, the ids and cosines of at most `candidates` memories, best first.
            weights: for each encoder, what the best result of the search by keyword adds to its cosine, 0 to 1, the
                others in proportion to their scores (`hins_memory.sdk.weighted_keywords`); None leaves an encoder the
                framework's own sum, and in the place of the list all of them. Numbers are given only where
                `takes_keyword_weight` is true.

        Returns:
            For each encoder, the ids that the framework's search would return, best first.
        """


@runtime_checkable
class Agent(Protocol):
    """A live agent whose encoder and indexes can be swapped.

    An agent may also have `ranking`, a `Ranking` or None: with it, the gate judges a version as it would be served. A
    framework that ranks by cosine alone needs none.
    """

    @property
    def name(self) -> str:
        """The framework's name, e.g. ``mem0``."""

    @property
    def store_id(self) -> str:
        """What identifies the store this agent works on, the same in every process (no secrets in it)."""

    @property
    def score_thresholds(self) -> tuple[float, ...]:
        """The cosine values that the framework hard-codes as thresholds."""

    @property
    def encoder_version(self) -> str:
        """The encoder version that serves now; "" when the agent embeds with an encoder of its own."""

    @property
    def records_changes(self) -> bool:
        """Whether every write is noted in the registry, so that a rollback need not compare all records."""

    @property
    def switch_delay_seconds(self) -> float:
        """How long after a flip another process may still use the old index, in seconds; 0 with only one process."""

    def refresh(self) -> None:
        """Apply what other processes recorded about the store; does nothing if only one process can have it open."""

    def live_indexes(self) -> list[Index]:
        """Return the indexes that serve now."""

    def open_indexes(self, version: str, suffix: str) -> list[Index]:
        """Open (creating what is missing) the indexes of `version` under the collection suffix `suffix`."""

    def start_dual_write(self, version: str, suffix: str) -> None:
        """From now on, send every write to the live indexes and to the shadow indexes of `version` too."""

    def dual_write_lock(self) -> Any:
        """Return the context manager that excludes concurrent writes to the shadow indexes."""

    def flush_dual_writes(self) -> None:
        """Copy every write that has not reached the shadow indexes yet; raise when that cannot be done."""

    def switch_to(self, version: str, suffix: str) -> float:
        """Serve from the indexes and encoder of `version`; operations that already run end on the old ones.

        When `suffix` is the one that serves, the indexes stay, because both versions make the same vectors of
        documents: only the encoder changes, without `start_dual_write` before.

        Returns:
            For how many seconds the agent's other users were kept waiting.
        """

    def stop_dual_write(self) -> None:
        """Stop writing to the shadow indexes; they stay as they are."""


def check_agent(agent: Any) -> None:
    """Check that an object has the members of `Agent`, without reading any of them.

    Raises:
        AgentError: it lacks some, e.g. because its adapter was written for the names of version 0.1.
    """
    names = [name for name in vars(Agent) if not name.startswith("_")]
    missing = [name for name in names if not hasattr(type(agent), name) and name not in getattr(agent, "__dict__", {})]
    if missing:
        raise AgentError(
            f"The agent {type(agent).__name__} of an adapter has no {', '.join(missing)}.",
            "Update the adapter: docs/adapters.md has the protocol, and CHANGELOG.md the names that changed since 0.1.",
        )


def ranking_of(agent: Agent) -> Ranking | None:
    """Return how an agent's framework ranks; None where it ranks by cosine alone, or does not say."""
    ranking: Ranking | None = getattr(agent, "ranking", None)
    return ranking


def sample_of(index: Index, count: int) -> list[Record]:
    """Return at most `count` records of an index: by its own `sample` where it has one, else its first page."""
    some = getattr(index, "sample", None)
    found: list[Record] = next(index.pages(count), []) if some is None else some(count)
    return found


def same_record(one: Record | None, other: Record | None) -> bool:
    """Return whether both are missing, or equal in text and payload."""
    if one is None or other is None:
        return one is other
    if one.text != other.text:
        return False
    # Also compared as JSON, because NaN is not equal to itself.
    return dict(one.payload) == dict(other.payload) or _canonical(one) == _canonical(other)


def _canonical(record: Record) -> str:
    return json.dumps(dict(record.payload), sort_keys=True, default=repr)
