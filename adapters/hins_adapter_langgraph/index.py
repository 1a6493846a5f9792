"""A LangGraph store as an index: its items that have vectors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from langgraph.store.base import GetOp, PutOp, tokenize_path

from hins_adapter_langgraph.embedding import HinsEmbeddings
from hins_adapter_langgraph.kinds import Kind
from hins_adapter_langgraph.naming import item_id, joined, place_of, text_fields, texts_of
from hins_memory.plugins.protocols import Record
from hins_memory.sdk import IndexBase

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["StoreIndex"]

# What LangGraph appends to a path that gives several texts.
_NUMBER = re.compile(r"\.\d+$")


class StoreIndex(IndexBase):
    """The items of a store that have vectors, under the ids of the log, each with its texts joined.

    The wrapped store itself is written to by the framework alone: a swap adds to it what it lacks, and deletes nothing.

    Args:
        kind: what is known of the wrapped store.
        suffix: of a store beside it; "" for the wrapped one.
        embeddings: what embeds the store's texts; None where it is not of hins-memory.
    """

    def __init__(self, kind: Kind, suffix: str, embeddings: HinsEmbeddings | None) -> None:
        super().__init__(f"{kind.name}{suffix}")
        self.suffix = suffix
        self._kind = kind
        #: the LangGraph store
        self.store: Any = kind.open(suffix, embeddings) if suffix and embeddings else kind.store
        # A store beside that is open already has its own, which embed the same.
        self.embeddings: HinsEmbeddings | None = self.store.embeddings if suffix else embeddings
        self._fields = text_fields(kind.store)

    def ids(self) -> list[str]:
        """Return the ids of all items with a vector."""
        return list(self._kind.vectors(self.suffix, None))

    def get(self, ids: Sequence[str]) -> list[Record]:
        """Return the items of those ids that exist and have a vector."""
        paths = self._kind.vectors(self.suffix, ids)
        places = [place_of(id_) for id_ in paths]
        found = self.store.batch([GetOp(namespace, key, refresh_ttl=False) for namespace, key in places])
        items = zip(paths, found, strict=True)
        return [Record(id_, self._text(item.value, paths[id_]), dict(item.value)) for id_, item in items if item]

    def vectors(self, ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Return the vectors of items that have one; items with several texts have no vector of all of them."""
        import numpy as np

        found = self._kind.vectors(self.suffix, ids).items()
        return {
            id_: np.asarray(next(iter(vectors.values())), dtype=np.float32)
            for id_, vectors in found
            if len(vectors) == 1
        }

    def upsert(self, records: Sequence[Record], vectors: NDArray[np.float32]) -> None:
        """Write items with their vectors, of shape (len(records), dim)."""
        given = {record.text: vector.tolist() for record, vector in zip(records, vectors, strict=True)}
        if not self.suffix:
            known = {record.id: record for record in self.get([record.id for record in records])}
            records = [record for record in records if known.get(record.id) != record]
        puts = [self._put(record) for record in records]
        if self.embeddings is None or not puts:
            self.store.batch(puts)
            return
        # Several texts of an item are embedded by the store itself.
        with self.embeddings.given(given):
            self.store.batch(puts)

    def delete(self, ids: Iterable[str]) -> None:
        """Delete items of a store beside; ids that do not exist are ignored."""
        if self.suffix:
            self.store.batch([PutOp(*place_of(id_), None) for id_ in ids])

    def drop(self) -> None:
        """Delete a store beside; the wrapped one stays."""
        if self.suffix:
            self._kind.drop(self.suffix)

    def copy(self, op: PutOp) -> PutOp:
        """Return what a put of the wrapped store means for this store beside it: without a text, the item goes."""
        fields = self._fields if op.index is None else [(path, tokenize_path(path)) for path in op.index or ()]
        embedded = op.value is not None and texts_of(op.value, fields)
        return op._replace(ttl=None) if embedded else PutOp(op.namespace, op.key, None)

    def _put(self, record: Record) -> PutOp:
        namespace, key = place_of(record.id)
        index = None if joined(texts_of(record.payload, self._fields)) == record.text else self._paths(record)
        return PutOp(namespace, key, dict(record.payload), index=index)

    def _paths(self, record: Record) -> list[str]:
        """Return the paths that an item is embedded by, where they are not those of the store."""
        return sorted(path for path in _leaves(record.payload) if record.payload.get(path) in record.text.split("\n"))

    def _text(self, value: Any, paths: Iterable[str]) -> str:
        text = joined(texts_of(value, self._fields))
        if text:
            return text
        fields = dict.fromkeys(_NUMBER.sub("", path) for path in paths)
        return joined(texts_of(value, [(path, tokenize_path(path)) for path in fields]))


def _leaves(value: Any) -> list[str]:
    return [name for name, one in value.items() if isinstance(one, str)]


def written_ids(ops: Iterable[Any]) -> list[str]:
    """Return the ids of the items that operations write; those that cannot be named are left out."""
    found: dict[str, None] = {}
    for op in ops:
        if isinstance(op, PutOp):
            try:
                found[item_id(op.namespace, op.key)] = None
            except (UnicodeError, ValueError, TypeError):
                continue
    return list(found)
