"""A LangGraph store as an agent whose encoder can be swapped."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, cast

from langgraph.config import get_config
from langgraph.store.base import GetOp, PutOp, SearchOp

from hins_adapter_langgraph.databases import open_index, store_name
from hins_adapter_langgraph.embedding import AskedText, HinsEmbeddings
from hins_adapter_langgraph.naming import fields_of, id_of, item_id, text_of
from hins_memory.log.capture import never_raises
from hins_memory.registry.loader import TextEncoder
from hins_memory.sdk import AttachOptions, BesideAgent, Binding, OwnEncoder
from hins_memory.types import RankedMemory, Scope

__all__ = ["LangGraphAgent"]

#: does operations with the wrapped store, and returns their results
Call = Callable[[list[Any]], list[Any]]


class LangGraphAgent(BesideAgent):
    """What a `HinsStore` does with a store that has an index.

    Items stay where they are, with the vectors that the store makes. Vectors of another encoder are in a store beside
    it, which finds what is searched for; the items found are then those of the wrapped store.

    Args:
        memory: the store.
        options: how it is attached.
        owner: returns whose data a namespace holds, None for what has no owner.
    """

    name = "langgraph"
    methods = ()

    def __init__(self, memory: Any, options: AttachOptions, owner: Callable[[tuple[str, ...]], Scope | None]) -> None:
        self._owner = owner
        super().__init__(memory, options)

    def store_of(self, memory: Any) -> str:
        """Name the store."""
        return store_name(memory)

    @property
    def own_embedder(self) -> Any:
        """The embeddings of the store's index."""
        return self.memory.embeddings

    def own_encoder(self) -> TextEncoder:
        """Return the same as an encoder."""
        return OwnEncoder(self.own_embedder.embed_documents, self.own_embedder.embed_query)

    def indexes(self, suffix: str, encoder: Any = None) -> list[Any]:
        """Open the store, or the one beside it."""
        return [open_index(self.memory, suffix, HinsEmbeddings(encoder) if encoder else None)]

    def batch(self, ops: Sequence[Any], call: Call) -> list[Any]:
        """Do operations in one batch by what serves, and record them.

        Args:
            ops: the operations.
            call: does operations with the wrapped store.
        """
        searches = {n: op for n, op in enumerate(ops) if isinstance(op, SearchOp) and op.query}
        written = [id_ for op in ops if isinstance(op, PutOp) and (id_ := id_of(op))]
        with self.pin() as binding, binding.index.writes.tracked(written) if written else nullcontext():
            scopes = {n: self._scope(op) for n, op in searches.items()}
            asking = {n: binding if scope is None else self.load_scoped(scope) for n, scope in scopes.items()}
            asked = [_asked(op, asking[n]) if n in asking else op for n, op in enumerate(ops)]
            results = _beside(binding.index, asked, asking, call) if binding.suffix else call(asked)
        for n, op in enumerate(ops):
            if n in asking:
                self._searched(scopes[n], op, results[n], asking[n].version)
            elif isinstance(op, PutOp):
                self._put(op)
        return results

    @never_raises(cast("Scope | None", None))
    def _scope(self, op: Any) -> Scope | None:
        """Return whose an operation is; None where it names no owner, or the function that decides fails."""
        return self._owner(tuple(op[0])) if id_of(op) else None

    @never_raises(None)
    def _put(self, op: Any) -> None:
        scope, text = self._scope(op), ""
        if op.value is not None and op.index is not False:
            text = text_of(op.value, fields_of(self.memory)) or text_of(op.value, fields_of(self.memory, op.index))
        if scope is not None and not text:
            # Also of an item that a search by meaning cannot find any more.
            self.recorder.record_deletion(scope, id_of(op))
        else:
            self.recorder.record_memory(scope, id_of(op), _thread() or "/".join(op.namespace), text)

    @never_raises(None)
    def _searched(self, scope: Scope | None, op: Any, found: Sequence[Any], version: str) -> None:
        # Without a score it was not found by meaning.
        ranked = [item for item in found if item.score is not None]
        fields = fields_of(self.memory)
        owned = [
            (
                self._owner(item.namespace),
                RankedMemory(item_id(item.namespace, item.key), text_of(item.value, fields), float(item.score)),
            )
            for item in ranked
        ]
        if owned or not found:
            self.recorder.record_search(scope, op.query, owned, version)


def _asked(op: Any, binding: Binding) -> Any:
    """Return a search that is asked by the encoder of a binding; the store's own embeddings embed it themselves."""
    if not binding.version:
        return op
    (vector,) = binding.encoder.encode([op.query], role="query").tolist()
    return op._replace(query=AskedText.of(op.query, vector))


def _beside(index: Any, ops: Sequence[Any], asking: Mapping[int, Any], call: Call) -> list[Any]:
    """Do operations where a store beside the wrapped one has the vectors: that one finds, and is written to first.

    So what cannot be embedded is not stored either.

    Args:
        index: of the store beside.
        ops: the operations.
        asking: the places of those that search by meaning.
        call: does operations with the wrapped store.
    """
    searches = [ops[n] for n in asking]
    copies = [index.copy(op) for op in ops if isinstance(op, PutOp)]
    hits = dict(zip(asking, index.store.batch([*searches, *copies]) if searches or copies else (), strict=False))
    parts = [
        [GetOp(hit.namespace, hit.key, op.refresh_ttl) for hit in hits[n]] if n in hits else [op]
        for n, op in enumerate(ops)
    ]
    done = iter(call([op for part in parts for op in part]))
    results: list[Any] = []
    for n, part in enumerate(parts):
        items = [next(done) for _ in part]
        results.append(_found(items, hits[n]) if n in hits else items[0])
    return results


def _found(items: Sequence[Any], hits: Sequence[Any]) -> list[Any]:
    """Return what was found, as the wrapped store has it; what is not there any more is left out."""
    return [
        type(hit)(item.namespace, item.key, item.value, item.created_at, item.updated_at, hit.score)
        for item, hit in zip(items, hits, strict=True)
        if item is not None
    ]


def _thread() -> str:
    """Return the thread of the graph that is running; "" outside of one."""
    try:
        return str(get_config().get("configurable", {}).get("thread_id") or "")
    except RuntimeError:
        return ""
