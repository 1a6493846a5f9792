"""The hooks of the Mem0 adapter; importing this imports neither mem0 nor torch."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hins_adapter_mem0._require import require_mem0
from hins_memory.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from hins_memory.config import Settings
    from hins_memory.plugins.protocols import Agent

__all__ = ["hins_agent", "hins_agent_names", "hins_attach", "hins_detach", "hins_open_agent"]


def _is_ours(memory: Any) -> bool:
    """Return whether an object is a Mem0 memory; when mem0 was never imported, nothing can be one."""
    if "mem0" not in sys.modules:
        return False
    from hins_adapter_mem0.attaching import is_memory

    return is_memory(memory)


@hookimpl
def hins_agent_names() -> list[str]:
    """Name the framework."""
    return ["mem0"]


@hookimpl
def hins_attach(memory: Any, options: Mapping[str, Any]) -> Any:
    """Attach to a Mem0 memory."""
    if not _is_ours(memory):
        return None
    from hins_adapter_mem0.attaching import attach_with

    return attach_with(memory, options)


@hookimpl
def hins_detach(memory: Any) -> Any:
    """Restore a Mem0 memory."""
    if not _is_ours(memory):
        return None
    from hins_adapter_mem0.attaching import detach

    return detach(memory)


@hookimpl
def hins_agent(memory: Any) -> Agent | None:
    """Return the agent behind an attached Mem0 memory."""
    if not _is_ours(memory):
        return None
    from hins_adapter_mem0.attaching import agent_of

    return agent_of(memory)


@hookimpl
def hins_open_agent(name: str, settings: Settings, config: Mapping[str, Any] | None) -> Any:
    """Open the project's Mem0 for the command line; nothing is captured."""
    if name != "mem0":
        return None
    require_mem0()
    from hins_adapter_mem0.memory import Memory

    return Memory(config, settings=settings, capture=False)
