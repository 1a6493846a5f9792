"""A LangGraph store that records how another one is used."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from langgraph.store.base import BaseStore

from hins_adapter_langgraph.naming import Owners, item_id, owners_of
from hins_adapter_langgraph.recorder import StoreRecorder
from hins_memory.errors import AgentError
from hins_memory.sdk.attachment import Attachment, OutcomeMethods, attachment_of
from hins_memory.sdk.options import AttachOptions

__all__ = ["HinsStore"]


class HinsStore(BaseStore, OutcomeMethods):  # type: ignore[misc]  # langgraph is not read by mypy
    """Any LangGraph store, with its use recorded; give it to ``compile(store=...)`` in the place of the store.

    Args:
        inner: the store. It is not changed; what is done with it directly is not seen.
        namespace: which labels of a namespace name the user, agent, run or tenant; see `owners_of`.
        options: as those of `hins_memory.attach`: embedder, reembed, capture, project, settings, model.

    Raises:
        AgentError: an embedder is asked for.
        ConfigError: an option is not valid.

    Example:
        store = HinsStore(InMemoryStore(index=index), namespace=("memories", "{user}"))
        graph = builder.compile(store=store)
        with store.turn() as turn:
            reply = graph.invoke({"messages": [question]})
            turn.answered(reply["messages"][-1].content)
    """

    def __init__(self, inner: Any, *, namespace: Owners | None = None, **options: Any) -> None:
        owner, chosen = owners_of(namespace), AttachOptions.of("langgraph", options)
        settings = chosen.resolved_settings
        self.inner = inner
        self.namespace = namespace
        if chosen.embedder is not None:
            raise AgentError(
                "A LangGraph store is not served by hins-memory yet, only recorded.",
                "Give it HinsEmbeddings(...) in its index instead.",
            )
        recorder = StoreRecorder(owner).join(settings, capture=chosen.capture)
        Attachment(settings=settings, recorder=recorder, original=type(inner)).install(self)

    @property
    def supports_ttl(self) -> bool:
        """Whether items can be put with a time to live."""
        return bool(self.inner.supports_ttl)

    @property
    def ttl_config(self) -> Any:
        """The inner store's settings of times to live."""
        return self.inner.ttl_config

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "inner":
            raise AttributeError(name)
        return getattr(self.inner, name)

    def batch(self, ops: Iterable[Any]) -> list[Any]:
        """Do operations in one batch, as the inner store does them, and record them."""
        ops = list(ops)
        results: list[Any] = self.inner.batch(ops)
        self._hins_recorder.batch(self.inner, ops, results)
        return results

    async def abatch(self, ops: Iterable[Any]) -> list[Any]:
        """Do operations in one batch, as the inner store does them, and record them."""
        ops = list(ops)
        results: list[Any] = await self.inner.abatch(ops)
        self._hins_recorder.batch(self.inner, ops, results)
        return results

    @staticmethod
    def memory_id(namespace: tuple[str, ...], key: str) -> str:
        """Return the id under which the log knows an item, e.g. for `feedback`."""
        return item_id(namespace, key)

    def close(self) -> None:
        """Write what waits to be recorded, and record nothing more; the inner store stays open."""
        attachment_of(self).close(self)
