"""A `MemoryEngine` as an agent that records, and whose queries can be embedded by a tower."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from hins_adapter_hindsight.embedding import HinsEmbeddings, ServingEmbeddings
from hins_adapter_hindsight.extension import HinsExtension, in_front_of, scope_of
from hins_memory.errors import AgentError
from hins_memory.registry.loader import TextEncoder
from hins_memory.sdk import AttachOptions, ObjectAgent, OwnEncoder, TrackedIndex, UnlistedIndex, finish

__all__ = ["HindsightAgent"]

_PARTS = ("_operation_validator", "embeddings")
_ADVICE = "Make the engine with HinsEmbeddings, and train with --mode tower; or retain everything in a new database."


class BankIndex(UnlistedIndex):
    """The vectors of an engine, which are not replaced."""

    def ids(self) -> list[str]:
        """Refuse to list what is not to be embedded again.

        Raises:
            AgentError: always.
        """
        problem = "Hindsight links what is alike by its vectors when it is retained, so they cannot be replaced."
        raise AgentError(problem, _ADVICE)


class HindsightAgent(ObjectAgent):
    """What takes the place of an engine's validator, embeddings and `recall_async`."""

    name = "hindsight"
    methods = ("recall_async",)

    def __init__(self, memory: Any, options: AttachOptions) -> None:
        #: the engine's own attributes that others take the place of
        self.own_parts = {name: vars(memory)[name] for name in _PARTS}
        super().__init__(memory, options)

    def parts(self) -> dict[str, Any]:
        """Return what takes the place of the engine's own attributes."""
        validator, embeddings = self.own_parts.values()
        extension = HinsExtension({}, self.recorder, lambda: self.binding.version)
        if validator is not None:
            extension = in_front_of(validator, extension)
        extension.set_context(_Context(self.memory))
        serving = ServingEmbeddings(lambda: self.binding.encoder) if self.current.version else embeddings
        return dict(zip(_PARTS, (extension, serving), strict=True))

    def store_of(self, memory: Any) -> str:
        """Name the database, without secrets."""
        if memory._use_pg0:
            return f"hindsight:pg0:{memory._pg0_instance_name}"
        url = urlsplit(memory.db_url)
        return f"hindsight:{url.hostname or 'localhost'}:{url.port or 5432}{url.path}"

    def open(self, options: AttachOptions) -> None:
        """Serve as asked: over vectors of `HinsEmbeddings`, else with the engine's own embeddings."""
        embeddings = self.memory.embeddings
        made_with = embeddings.encoder if isinstance(embeddings, HinsEmbeddings) else None
        self.serve_beside(options, self.own, made_with)

    def own(self) -> tuple[TextEncoder, TrackedIndex]:
        """Return the engine's own embeddings, and its vectors."""
        return OwnEncoder(partial(_embed, self.memory.embeddings)), self.index("")

    def index(self, suffix: str) -> TrackedIndex:
        """Return the engine's vectors; there are none beside them."""
        return BankIndex(self.memory, suffix, _ADVICE)

    async def recall_async(self, bank_id: str, query: str, *, request_context: Any, **options: Any) -> Any:
        """Recall by one encoder from the beginning to the end: that of the bank, where it has one."""
        recall = type(self.memory).recall_async
        async with self.pin_async(scope_of(bank_id, request_context)):
            return await recall(self.memory, bank_id, query, request_context=request_context, **options)


class _Context:
    """What an extension is told: the engine."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def get_memory_engine(self) -> Any:
        return self._engine


def _embed(embeddings: Any, texts: Sequence[str]) -> list[list[float]]:
    """Return what an engine's embeddings give."""
    vectors: list[list[float]] = finish(lambda: embeddings.encode_documents(list(texts)))
    return vectors
