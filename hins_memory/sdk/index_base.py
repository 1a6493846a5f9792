"""What an index of rows with ids has in common, for adapters whose store has calls for some ids at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hins_memory.errors import AgentError
from hins_memory.sdk.dual_write import WriteTracker
from hins_memory.sdk.paging import pages_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hins_memory.plugins.protocols import Record

__all__ = ["IndexBase", "UnlistedIndex", "as_arrays", "name_beside"]


def name_beside(name: str, suffix: str) -> str:
    """Return the name of what is beside something of a framework's own, for the vectors of another encoder.

    Args:
        name: what the framework calls its own table, collection or property.
        suffix: that of the index; "" for the framework's own.
    """
    return f"{name}_hins{suffix}" if suffix else name


def as_arrays(vectors: Mapping[str, Sequence[float]]) -> dict[str, NDArray[np.float32]]:
    """Return vectors that a framework gives as lists, by the same ids, each of shape (dim,)."""
    import numpy as np

    return {id_: np.asarray(vector, dtype=np.float32) for id_, vector in vectors.items()}


class IndexBase(ABC):
    """A `TrackedIndex` over a store that can name its rows, and reads and writes them by their ids.

    Args:
        name: the name under which the framework's store knows it, or its own index, where this is one beside it.
        kind: what it holds; pairs a live index with its shadow.
        suffix: of an index beside the framework's own (`name_beside`); "" for its own.
    """

    def __init__(self, name: str, kind: str = "memories", suffix: str = "") -> None:
        self.name = name_beside(name, suffix)
        self.kind = kind
        self.suffix = suffix
        self.writes = WriteTracker(self.name)

    @abstractmethod
    def ids(self) -> list[str]:
        """Return the ids of all rows."""

    @abstractmethod
    def get(self, ids: Sequence[str]) -> list[Record]:
        """Return the records of those ids that exist, in any order."""

    @abstractmethod
    def vectors(self, ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Return the stored unit vectors by id, each of shape (dim,); missing ids are left out."""

    @abstractmethod
    def upsert(self, records: Sequence[Record], vectors: NDArray[np.float32]) -> None:
        """Write records with their vectors, of shape (len(records), dim)."""

    @abstractmethod
    def delete(self, ids: Iterable[str]) -> None:
        """Delete records; ids that do not exist are ignored."""

    @abstractmethod
    def drop(self) -> None:
        """Delete the index itself with everything in it."""

    def record_id(self, id_: Any) -> str:
        """Return the one spelling of an id under which records are known here."""
        return str(id_)

    def count(self) -> int:
        """Return the number of records."""
        return len(self.ids())

    def pages(self, size: int) -> Iterator[list[Record]]:
        """Yield all records, at most `size` at a time, as they are when this begins."""
        return pages_of(self.ids(), self.get, size)

    def clear(self) -> None:
        """Delete every record."""
        self.delete(self.ids())


class UnlistedIndex(IndexBase):
    """A store that cannot be listed: it can serve, and be swapped to a version that changes queries only.

    Args:
        store: the framework's store.
        suffix: of a store beside it, which there is none of; "" for itself.
        advice: what to do where other vectors are asked for.
    """

    def __init__(self, store: Any, suffix: str, advice: str) -> None:
        super().__init__(type(store).__name__, suffix=suffix)
        #: the framework's store
        self.store = store
        self._advice = advice

    def ids(self) -> list[str]:
        """Refuse to list what cannot be listed.

        Raises:
            AgentError: always.
        """
        kind = type(self.store).__name__
        raise AgentError(f"A {kind} cannot be re-embedded, because what is in it cannot be listed.", self._advice)

    def look(self) -> None:
        """Do nothing."""

    def sample(self, count: int) -> list[Record]:
        """Return no record: none can be had."""
        return []

    def get(self, ids: Sequence[str]) -> list[Record]:
        """Return no record: none can be had."""
        return []

    def vectors(self, ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Return no vector: none can be had."""
        return {}

    def upsert(self, records: Sequence[Record], vectors: NDArray[np.float32]) -> None:
        """Refuse to write.

        Raises:
            AgentError: there are records.
        """
        if records:
            self.ids()

    def delete(self, ids: Iterable[str]) -> None:
        """Do nothing: there is no store beside."""

    def drop(self) -> None:
        """Do nothing: there is no store beside."""
