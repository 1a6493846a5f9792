"""A LangGraph store as an agent whose encoder can be swapped."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack
from typing import Any

from langgraph.store.base import GetOp, PutOp, SearchOp

from hins_adapter_langgraph.embedding import HinsEmbeddings
from hins_adapter_langgraph.index import StoreIndex, written_ids
from hins_adapter_langgraph.kinds import Kind, kind_of
from hins_memory.errors import AgentError
from hins_memory.registry.loader import EncoderSource
from hins_memory.registry.registry import Registry
from hins_memory.sdk import AgentTable, AttachOptions, Binding, OwnEncoder, StoreAgent
from hins_memory.types import Scope

__all__ = ["LangGraphAgent", "open_agent"]

#: A store to ask, and what to ask it for; what comes back is sent into the generator.
Steps = Generator[tuple[Any, list[Any]], list[Any], tuple[list[Any], dict[int, str]]]
_agents: AgentTable[LangGraphAgent] = AgentTable()


class LangGraphAgent(StoreAgent[Binding]):
    """One store that has an index. Its items stay where they are; vectors of other encoders are in stores beside it.

    Args:
        kind: what is known of the store.
        encoders: loads the project's encoders.
    """

    name = "langgraph"

    def __init__(self, kind: Kind, encoders: EncoderSource) -> None:
        super().__init__(kind.name, encoders, shared=kind.shared)
        self._kind = kind
        embeddings = kind.store.embeddings
        self._own = embeddings if isinstance(embeddings, HinsEmbeddings) else None

    def bind(self, version: str, suffix: str) -> Binding:
        """Open the store of a version, creating it if it is missing."""
        encoder = self.encoders.by_version(version)
        # Versions that share vectors have one store, whose documents any of them embeds.
        embeddings = HinsEmbeddings(encoder) if suffix else self._own
        return Binding(encoder, version, suffix, (StoreIndex(self._kind, suffix, embeddings),))

    def open(self, options: AttachOptions) -> None:
        """Serve with what is recorded, or as the options say; again, where an encoder is asked for and none serves yet.

        Raises:
            AgentError: see `StoreAgent.serve_as_asked`, or the store's index embeds with another encoder than the one
                that its vectors are recorded with.
        """
        if self._current is not None and (options.embedder is None or self.encoder_version):
            return
        made_with: Any = None if self._own is None else self._own.encoder
        self.serve_beside(options, self._framework_own, made_with)

    def _framework_own(self) -> tuple[Any, StoreIndex]:
        embeddings = self._kind.store.embeddings
        return OwnEncoder(embeddings.embed_documents, embeddings.embed_query), StoreIndex(self._kind, "", None)

    def steps(self, inner: Any, ops: Sequence[Any], scope_of: Callable[[Any], Scope | None]) -> Steps:
        """Do a batch of operations; yields each call of a store, so that it can be awaited.

        Args:
            inner: the wrapped store, or another object on it.
            ops: the operations.
            scope_of: returns the owner of a search, None for none.

        Returns:
            The results, and the versions that searches were embedded by, by their places; none for the store's own.
        """
        with self.pin() as binding, ExitStack() as stack:
            index: StoreIndex = binding.index
            asked, versions = self._asked(ops, index, scope_of, stack)
            beside = bool(index.suffix)
            found = (yield index.store, list(asked.values())) if beside and asked else []
            if ids := written_ids(ops):
                stack.enter_context(index.writes.tracked(ids))
                if beside:
                    # First, so that what cannot be embedded is not stored either.
                    yield index.store, [index.copy(op) for op in ops if isinstance(op, PutOp)]
            if beside:
                results = yield inner, [op for n, op in enumerate(ops) if n not in asked]
            else:
                results = yield inner, [asked.get(n, op) for n, op in enumerate(ops)]
            if beside and asked:
                results = yield from _merged(inner, results, dict(zip(asked, found, strict=True)), ops)
            return results, versions

    def _asked(
        self, ops: Sequence[Any], index: StoreIndex, scope_of: Callable[[Any], Scope | None], stack: ExitStack
    ) -> tuple[dict[int, Any], dict[int, str]]:
        """Return the searches with a query, by their place, each asking by its owner's encoder; and which."""
        searches = {n: op for n, op in enumerate(ops) if isinstance(op, SearchOp) and op.query}
        if not searches or index.embeddings is None:
            return {}, {}
        vectors, versions = [], {}
        for n, op in searches.items():
            scope = scope_of(op)
            binding = self.binding if scope is None else self.load_scoped(scope)
            vectors.append(binding.encoder.encode([op.query], role="query")[0])
            versions[n] = binding.version
        tokens = stack.enter_context(index.embeddings.asked(vectors))
        return {n: op._replace(query=token) for (n, op), token in zip(searches.items(), tokens, strict=True)}, versions


def _merged(
    inner: Any, results: list[Any], found: dict[int, list[Any]], ops: Sequence[Any]
) -> Generator[tuple[Any, list[Any]], list[Any], list[Any]]:
    """Put what was found beside in the places of the searches, with the items as the wrapped store has them."""
    gets = [GetOp(hit.namespace, hit.key, ops[n].refresh_ttl) for n, hits in found.items() for hit in hits]
    items = (yield inner, gets) if gets else []
    by_hit = iter(items)
    rest = iter(results)
    merged = []
    for n in range(len(ops)):
        if n in found:
            pairs = [(hit, next(by_hit)) for hit in found[n]]
            merged.append([_as_found(item, hit) for hit, item in pairs if item is not None])
        else:
            merged.append(next(rest))
    return merged


def _as_found(item: Any, hit: Any) -> Any:
    return type(hit)(item.namespace, item.key, item.value, item.created_at, item.updated_at, hit.score)


def open_agent(store: Any, options: AttachOptions) -> LangGraphAgent | None:
    """Return the agent of a store, the same for every `HinsStore` around it; None where it has no index.

    Raises:
        AgentError: it cannot be served as asked.
    """
    if not getattr(store, "index_config", None) or getattr(store, "embeddings", None) is None:
        if options.embedder is None:
            return None
        raise AgentError(
            f"This {type(store).__name__} has no index, so that nothing in it is found by meaning.",
            'Make it with index={"dims": ..., "embed": HinsEmbeddings("stock"), "fields": ["text"]}.',
        )
    settings, kind = options.resolved_settings, kind_of(store)

    def make() -> LangGraphAgent:
        return LangGraphAgent(kind, EncoderSource(Registry(settings), options.model))

    with _agents.lock:
        agent = _agents.get_or_open((kind.name, settings.database_url, id(store)), make)
        agent.open(options)
    return agent
