"""A LangGraph store as an index: its items that have vectors, and those of another encoder in a store beside it."""

from __future__ import annotations

import re
import threading
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from langgraph.store.base import GetOp, PutOp, get_text_at_path

from hins_adapter_langgraph.embedding import HinsEmbeddings
from hins_adapter_langgraph.naming import fields_of, item_id, place_of, text_of
from hins_memory.plugins.protocols import Record
from hins_memory.sdk import IndexBase, as_arrays

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["MemoryIndex", "StoreIndex"]

# What LangGraph appends to a path that gives several texts.
_NUMBER = re.compile(r"\.\d+$")
# The stores beside each wrapped one, by their suffixes, each with what identified it when it was opened.
_beside: WeakKeyDictionary[Any, dict[str, tuple[Any, Any]]] = WeakKeyDictionary()
_opening = threading.Lock()


class StoreIndex(IndexBase):
    """The items of a store that have vectors, under the ids of the log, each with its texts joined.

    The wrapped store itself is written to by the framework alone: a swap adds to it what it lacks, and deletes nothing.

    Args:
        name: what identifies the wrapped store.
        wrapped: the store.
        suffix: of a store beside it; "" for the wrapped one.
        embeddings: what embeds the texts of a store beside, of which it is needed.
    """

    def __init__(self, name: str, wrapped: Any, suffix: str, embeddings: Any) -> None:
        super().__init__(name, suffix=suffix)
        self._wrapped = wrapped
        #: the LangGraph store
        self.store: Any = wrapped
        if suffix:
            with _opening:
                stores = _beside.setdefault(wrapped, {})
                if suffix not in stores or stores[suffix][1] != self.identity():
                    made = self.make(embeddings)
                    stores[suffix] = (made, self.identity())
                self.store = stores[suffix][0]

    @abstractmethod
    def make(self, embeddings: HinsEmbeddings) -> Any:
        """Open the store beside, creating it if it is missing; its index has the settings that `config` returns."""

    def identity(self) -> Any:
        """Return what tells the store beside from one of its name that another process made; None where there is none.

        Another process may have dropped the one that is open here, and made it anew.
        """
        return self.suffix

    @abstractmethod
    def by_path(self, ids: Sequence[str]) -> Mapping[str, Mapping[str, Sequence[float]]]:
        """Return the stored vectors of those ids that have some, each by the path of its text."""

    def config(self, embeddings: HinsEmbeddings) -> dict[str, Any]:
        """Return the settings of an index that is as the wrapped store's, but for the encoder."""
        config = {name: value for name, value in self._wrapped.index_config.items() if not name.startswith("__")}
        return {**config, "dims": embeddings.dims, "embed": embeddings}

    def get(self, ids: Sequence[str]) -> list[Record]:
        """Return the items of those ids that exist and have a vector."""
        found = self.by_path(ids)
        items = self.store.batch([GetOp(*place_of(id_), refresh_ttl=False) for id_ in found])
        return [self._record(id_, item.value, found[id_]) for id_, item in zip(found, items, strict=True) if item]

    def vectors(self, ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Return the vectors of items that have one; items with several texts have no vector of all of them."""
        found = self.by_path(ids).items()
        return as_arrays({id_: next(iter(vectors.values())) for id_, vectors in found if len(vectors) == 1})

    def upsert(self, records: Sequence[Record], vectors: NDArray[np.float32]) -> None:
        """Write items. The store embeds them itself, by the encoder of the vectors, of shape (len(records), dim)."""
        if not self.suffix:
            known = {record.id: record for record in self.get([record.id for record in records])}
            records = [record for record in records if known.get(record.id) != record]
        self.store.batch(
            [
                PutOp(*place_of(record.id), dict(record.payload["value"]), index=record.payload["index"])
                for record in records
            ]
        )

    def delete(self, ids: Iterable[str]) -> None:
        """Delete items of a store beside; ids that do not exist are ignored."""
        if self.suffix:
            self.store.batch([PutOp(*place_of(id_), None) for id_ in ids])

    def drop(self) -> None:
        """Delete a store beside; the wrapped one stays."""
        with _opening:
            _beside.get(self._wrapped, {}).pop(self.suffix, None)

    def copy(self, op: PutOp) -> PutOp:
        """Return what a put of the wrapped store means for this store beside it: without a text, the item goes."""
        embedded = op.value is not None and text_of(op.value, fields_of(self._wrapped, op.index))
        return op._replace(ttl=None) if embedded else PutOp(op.namespace, op.key, None)

    def _record(self, id_: str, value: Mapping[str, Any], paths: Iterable[str]) -> Record:
        """Return an item with its text, its value, and the paths that it is embedded by, where these are its own."""
        fields, index = fields_of(self._wrapped), None
        own = sorted({_NUMBER.sub("", path) for path in paths})
        if own != sorted({path for path, tokens in fields if get_text_at_path(value, tokens)}):
            fields, index = fields_of(self._wrapped, own), own
        return Record(id_, text_of(value, fields), {"value": dict(value), "index": index})


class MemoryIndex(StoreIndex):
    """An `InMemoryStore`: the stores beside it live as long as it does."""

    def make(self, embeddings: HinsEmbeddings) -> Any:
        """Make the store beside."""
        return type(self._wrapped)(index=self.config(embeddings))

    def ids(self) -> list[str]:
        """Return the ids of all items with a vector."""
        # A copy, because other threads may put meanwhile.
        spaces = list(self.store._vectors.items())
        return [item_id(namespace, key) for namespace, items in spaces for key, paths in list(items.items()) if paths]

    def by_path(self, ids: Sequence[str]) -> dict[str, dict[str, list[float]]]:
        """Return the vectors of those ids that have some."""
        places = {id_: place_of(id_) for id_ in ids}
        found = {id_: dict(self.store._vectors.get(space, {}).get(key, {})) for id_, (space, key) in places.items()}
        return {id_: vectors for id_, vectors in found.items() if vectors}
