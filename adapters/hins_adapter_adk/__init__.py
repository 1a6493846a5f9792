"""A Mem0 memory for Google ADK; importing it imports neither google.adk nor torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hins_memory.errors import AgentError

if TYPE_CHECKING:
    from hins_adapter_adk.service import HinsMemoryService

__all__ = ["HinsMemoryService"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from hins_adapter_adk import service
    except ModuleNotFoundError as error:
        advice = 'Install it with: pip install "hins-memory[adk]"'
        raise AgentError("google-adk is not installed.", advice) from error
    return getattr(service, name)
