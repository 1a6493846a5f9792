"""The Mem0 adapter of hins-memory; importing it imports neither mem0 nor torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hins_adapter_mem0.attaching import attach, detach
    from hins_adapter_mem0.memory import AsyncMemory, Memory

__all__ = ["AsyncMemory", "Memory", "attach", "detach"]

_HOMES = {"AsyncMemory": "memory", "Memory": "memory", "attach": "attaching", "detach": "attaching"}


def __getattr__(name: str) -> Any:
    from hins_adapter_mem0.plugin import plugin

    return plugin.exported(__name__, _HOMES, name)
