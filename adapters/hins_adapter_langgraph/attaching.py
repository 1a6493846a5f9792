"""Attaching to a LangGraph store: it is wrapped, and never changed."""

from __future__ import annotations

from typing import Any

from hins_adapter_langgraph.agent import LangGraphAgent
from hins_adapter_langgraph.store import HinsStore
from hins_memory.errors import AgentError
from hins_memory.sdk.attachment import attachment_of
from hins_memory.sdk.opening import record_framework_encoder
from hins_memory.sdk.options import AttachOptions

__all__ = ["agent_of", "attach_with", "detach"]


def attach_with(memory: Any, options: AttachOptions) -> HinsStore:
    """Return a store that records the use of another; attaching again replaces the options."""
    given = {name: getattr(options, name) for name in options.__dataclass_fields__}
    if isinstance(memory, HinsStore):
        return HinsStore(detach(memory), namespace=memory.namespace, **given)
    return HinsStore(memory, **given)


def detach(memory: Any) -> Any:
    """Return the store that was attached to; it is as it was.

    Raises:
        AgentError: it is not attached.
    """
    if not isinstance(memory, HinsStore):
        raise AgentError(f"This {type(memory).__name__} is not attached.", "There is nothing to undo.")
    memory.close()
    return memory.inner


def agent_of(memory: Any) -> LangGraphAgent | None:
    """Return the agent of an attached store; None where it is not attached.

    Raises:
        AgentError: the store has no index.
    """
    if not isinstance(memory, HinsStore):
        return None
    agent: LangGraphAgent | None = attachment_of(memory).agent
    if agent is None:
        raise AgentError(
            "This LangGraph store has no index, so that there is nothing to swap.", "Make it with index={...}."
        )
    record_framework_encoder(agent, agent.encoders.registry)
    return agent
