"""A Mem0 memory for Microsoft Agent Framework; importing it imports neither agent_framework nor torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hins_memory.errors import AgentError

if TYPE_CHECKING:
    from hins_adapter_agent_framework.provider import HinsContextProvider

__all__ = ["HinsContextProvider"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from hins_adapter_agent_framework import provider
    except ModuleNotFoundError as error:
        advice = 'Install it with: pip install "hins-memory[agent-framework]"'
        raise AgentError("agent-framework-core is not installed.", advice) from error
    return getattr(provider, name)
