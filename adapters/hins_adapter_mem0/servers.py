"""Indexes over stores on servers that the tests do not run: what such a server answers is checked before it is used."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hins_adapter_mem0.index import StoreIndex
from hins_adapter_mem0.stores import GuardedStore, provider_of
from hins_memory.errors import AgentError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hins_memory.plugins.protocols import Record

__all__ = ["ServerIndex", "checked_pages", "checked_vectors"]

logger = logging.getLogger(__name__)

_AGAIN = "Run the same command again; if that repeats, "
_warned: set[str] = set()


class ServerIndex(StoreIndex):
    """An index by a server's own client, written from the client's types and documentation and not run on a server.

    Subclasses have `count`, `listed`, `get`, `read_vectors`, `upsert` and `delete`.
    """

    def __init__(self, store: GuardedStore, kind: str) -> None:
        super().__init__(store, kind)
        self._listed = False

    def pages(self, size: int) -> Iterator[list[Record]]:
        """Yield all records, at most `size` at a time.

        Raises:
            AgentError: the server names a record twice, or fewer than it counts.
        """
        provider = provider_of(self.store.raw)
        if provider not in _warned:
            _warned.add(provider)
            logger.warning(
                "hins-memory's reading of %s was never run on a server by its authors; what it gives is checked, and "
                "the swap is verified before the flip. Try it on a copy first.",
                provider,
            )
        self._listed = True
        yield from checked_pages(self.name, self.count, self.listed(size))

    def listed(self, size: int) -> Iterator[list[Record]]:
        """Yield all records as the server lists them, at most `size` at a time."""
        raise NotImplementedError

    def vectors(self, ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Return the stored vectors by id, each of shape (dim,); missing ids are left out.

        Raises:
            AgentError: a vector is missing or has another length than the index; not before the index was listed: a
                swap to a tower only compares the vectors that it can get.
        """
        if self._listed:
            return checked_vectors(self.name, self.read_vectors(ids), self.dimension())
        try:
            return checked_vectors(self.name, self.read_vectors(ids), self.dimension())
        except Exception:
            logger.warning("The vectors of %s could not be read, and are not compared", self.name, exc_info=True)
            return {}

    def read_vectors(self, ids: Sequence[str]) -> Mapping[str, Sequence[float] | None]:
        """Return the stored vectors of those ids that exist; None for a record whose vector the server leaves out."""
        raise NotImplementedError


def checked_pages(name: str, count: Callable[[], int], pages: Iterator[list[Record]]) -> Iterator[list[Record]]:
    """Yield pages as they come.

    Args:
        name: of the index, for messages.
        count: returns how many records the server counts.
        pages: what it lists.

    Raises:
        AgentError: an id comes twice, or the list has ended early; not if the count has changed meanwhile.
    """
    seen: set[str] = set()
    before = count()
    for page in pages:
        for record in page:
            if record.id in seen:
                raise AgentError(
                    f"{name} lists {record.id!r} twice.", f"{_AGAIN}delete one of its two rows in the store."
                )
            seen.add(record.id)
        yield page
    if len(seen) < before == count():
        raise AgentError(
            f"{name} lists {len(seen)} of its {before} records.",
            f"{_AGAIN}the server does not give all of them: train with --mode tower, which lists nothing.",
        )


def checked_vectors(
    name: str, found: Mapping[str, Sequence[float] | None], dim: int | None
) -> dict[str, NDArray[np.float32]]:
    """Return vectors as arrays of shape (dim,).

    Args:
        name: of the index, for messages.
        found: vectors by id.
        dim: how long they must be; None where the server does not say, then they must be of one length.

    Raises:
        AgentError: one is missing, has another length or holds a number that is not finite.
    """
    import numpy as np

    arrays: dict[str, NDArray[Any]] = {}
    for id_, vector in found.items():
        array = np.asarray([] if vector is None else vector, dtype=np.float32)
        if array.ndim != 1 or not array.size:
            raise AgentError(f"{name} gives no vector for {id_!r}.", "Write that memory again, or delete it.")
        dim = dim or array.size
        if array.size != dim or not np.isfinite(array).all():
            raise AgentError(
                f"{name} gives {array.size} numbers for {id_!r}, not {dim} finite ones.",
                "Another encoder wrote it: write that memory again, or delete it.",
            )
        arrays[id_] = array
    return arrays
