"""The plugin of the Mem0 adapter; importing this imports neither mem0 nor torch."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hins_memory.sdk.plugin import AdapterPlugin

if TYPE_CHECKING:
    from hins_memory.config import Settings

__all__ = ["plugin"]


class Mem0Plugin(AdapterPlugin):
    """The hooks of the Mem0 adapter."""

    name = package = "mem0"
    install = 'pip install "hins-memory[mem0]"'
    attaching = "hins_adapter_mem0.attaching"

    def is_ours(self, memory: Any) -> bool:
        """Return whether an object is a Mem0 memory; when mem0 was never imported, nothing can be one."""
        if "mem0" not in sys.modules:
            return False
        from hins_adapter_mem0.attaching import is_memory

        return is_memory(memory)

    def open(self, settings: Settings, config: Mapping[str, Any] | None) -> Any:
        """Open the project's Mem0 for the command line; nothing is captured."""
        self.require()
        from hins_adapter_mem0.memory import Memory

        return Memory(config, settings=settings, capture=False)


plugin = Mem0Plugin()
