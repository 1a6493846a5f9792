"""The MemoryOS adapter of hins-memory; importing it imports neither memoryos nor torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hins_adapter_memoryos.attaching import attach, detach
    from hins_adapter_memoryos.events import memory_id
    from hins_adapter_memoryos.memory import Memoryos

__all__ = ["Memoryos", "attach", "detach", "memory_id"]

_HOMES = {"Memoryos": "memory", "attach": "attaching", "detach": "attaching", "memory_id": "events"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    if name == "Memoryos":
        from hins_adapter_memoryos.plugin import plugin

        plugin.require()
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
