"""A LangGraph store that records how another one is used."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

from langgraph.store.base import BaseStore

from hins_adapter_langgraph.agent import LangGraphAgent, Steps, open_agent
from hins_adapter_langgraph.naming import Owners, item_id, owners_of
from hins_adapter_langgraph.recorder import StoreRecorder
from hins_memory.sdk.attachment import Attachment, OutcomeMethods, attachment_of
from hins_memory.sdk.options import AttachOptions

__all__ = ["HinsStore"]


@dataclass(kw_only=True)
class StoreAttachment(Attachment):
    """What a `HinsStore` keeps: `agent` is None for a store without an index."""

    agent: LangGraphAgent | None


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
        settings = chosen.resolved_settings
        self.inner = inner
        self.namespace = namespace
        agent = open_agent(inner, chosen)
        recorder = StoreRecorder(owner).join(settings, capture=chosen.capture)
        StoreAttachment(settings=settings, recorder=recorder, original=type(inner), agent=agent).install(self)

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
        agent: LangGraphAgent | None = attachment_of(self).agent
        versions: dict[int, str] = {}
        if agent is None:
            results = self.inner.batch(ops)
        else:
            results, versions = _done(agent.steps(self.inner, ops, self._hins_recorder.scope_of))
        self._hins_recorder.batch(self.inner, ops, results, versions)
        return list(results)

    async def abatch(self, ops: Iterable[Any]) -> list[Any]:
        """Do operations in one batch, as the inner store does them, and record them."""
        ops = list(ops)
        agent: LangGraphAgent | None = attachment_of(self).agent
        versions: dict[int, str] = {}
        if agent is None:
            results = await self.inner.abatch(ops)
        else:
            results, versions = await _awaited(agent.steps(self.inner, ops, self._hins_recorder.scope_of), self.inner)
        self._hins_recorder.batch(self.inner, ops, results, versions)
        return list(results)

    @staticmethod
    def memory_id(namespace: tuple[str, ...], key: str) -> str:
        """Return the id under which the log knows an item, e.g. for `feedback`."""
        return item_id(namespace, key)

    def close(self) -> None:
        """Write what waits to be recorded, and record nothing more; the inner store stays open."""
        attachment_of(self).close(self)


def _done(steps: Steps) -> tuple[list[Any], dict[int, str]]:
    """Take the steps of a batch."""
    call, answer = steps.send, None
    while True:
        try:
            store, ops = call(answer)  # type: ignore[arg-type]  # a generator begins with None
        except StopIteration as end:
            return cast("tuple[list[Any], dict[int, str]]", end.value)
        try:
            call, answer = steps.send, store.batch(ops)
        except BaseException as error:
            call, answer = steps.throw, error  # type: ignore[assignment]


async def _awaited(steps: Steps, inner: Any) -> tuple[list[Any], dict[int, str]]:
    """Take the steps of a batch: the inner store is awaited, and what is done between its calls is in other threads.

    There encoders run, and a store may be asked that waits for this event loop.
    """
    # One context for all steps, because what a step sets another one resets; not that of the task, which goes on here.
    loop, context = asyncio.get_running_loop(), contextvars.copy_context()
    call: Any = steps.send
    answer: Any = None
    while True:
        step = await loop.run_in_executor(None, context.run, _step, call, answer)
        if len(step) == 1:
            return cast("tuple[list[Any], dict[int, str]]", step[0])
        store, ops = step
        try:
            result = await store.abatch(ops) if store is inner else await asyncio.to_thread(store.batch, ops)
            call, answer = steps.send, result
        except BaseException as error:
            call, answer = steps.throw, error


def _step(call: Any, answer: Any) -> tuple[Any, ...]:
    """Return the next call of a store; at the end what the batch returns, alone."""
    try:
        return cast("tuple[Any, ...]", call(answer))
    except StopIteration as end:
        # It cannot be raised into a coroutine.
        return (end.value,)
