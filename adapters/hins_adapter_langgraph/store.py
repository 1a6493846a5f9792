"""A LangGraph store that records how another one is used."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from langgraph.store.base import BaseStore

from hins_adapter_langgraph.agent import LangGraphAgent
from hins_adapter_langgraph.naming import Owners, item_id, owners_of
from hins_memory.errors import AgentError
from hins_memory.sdk import AttachOptions, OutcomeMethods, Recorder

__all__ = ["HinsStore"]


class HinsStore(BaseStore, OutcomeMethods):  # type: ignore[misc]  # langgraph is not read by mypy
    """Any LangGraph store, with its use recorded; give it to ``compile(store=...)`` in the place of the store.

    Args:
        inner: the store. It is not changed; what is done with it directly is not seen.
        namespace: which labels of a namespace name the user, agent, run or tenant; see `owners_of`.
        options: as those of `hins_memory.attach`: embedder, reembed, capture, project, settings, model.

    Raises:
        AgentError: it cannot be served as asked.
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
        self.inner = inner
        self.namespace = namespace
        self.supports_ttl, self.ttl_config = inner.supports_ttl, inner.ttl_config
        #: the agent; None for a store without an index, in which nothing is found by meaning
        self.hins: LangGraphAgent | None = None
        # Of its own: the inner store may wait for other threads while one of these waits for it.
        self._threads = ThreadPoolExecutor(thread_name_prefix="hins-langgraph")
        if getattr(inner, "index_config", None) and getattr(inner, "embeddings", None) is not None:
            self.hins = LangGraphAgent(inner, chosen, owner)
        elif chosen.embedder is not None:
            raise AgentError(
                f"This {type(inner).__name__} has no index, so that nothing in it is found by meaning.",
                'Make it with index={"dims": ..., "embed": HinsEmbeddings("stock"), "fields": ["text"]}.',
            )

    @property
    def _hins_recorder(self) -> Recorder:
        return Recorder() if self.hins is None else self.hins.recorder

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "inner":
            raise AttributeError(name)
        return getattr(self.inner, name)

    def batch(self, ops: Iterable[Any]) -> list[Any]:
        """Do operations in one batch, as the inner store does them, and record them."""
        if self.hins is None:
            return list(self.inner.batch(ops))
        return self.hins.batch(list(ops), self.inner.batch)

    async def abatch(self, ops: Iterable[Any]) -> list[Any]:
        """Do operations in one batch, as the inner store does them, and record them.

        The inner store is awaited here; what is done before and after that, such as encoding, is in another thread.
        """
        if self.hins is None:
            return list(await self.inner.abatch(ops))
        loop, context = asyncio.get_running_loop(), contextvars.copy_context()

        def call(some: list[Any]) -> list[Any]:
            return list(asyncio.run_coroutine_threadsafe(self.inner.abatch(some), loop).result())

        return await loop.run_in_executor(self._threads, context.run, self.hins.batch, list(ops), call)

    @staticmethod
    def memory_id(namespace: tuple[str, ...], key: str) -> str:
        """Return the id under which the log knows an item, e.g. for `feedback`."""
        return item_id(namespace, key)

    def close(self) -> None:
        """Write what waits to be recorded, and record nothing more; the inner store stays open."""
        if self.hins is not None:
            self.hins.recorder.leave(self.hins.settings)
