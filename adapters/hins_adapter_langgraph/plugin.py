"""The plugin of the LangGraph adapter; importing this imports neither langgraph nor torch."""

from __future__ import annotations

import sys
from typing import Any

from hins_memory.sdk.plugin import AdapterPlugin

__all__ = ["plugin"]


class LangGraphPlugin(AdapterPlugin):
    """The hooks of the LangGraph adapter."""

    name = package = "langgraph"
    install = 'pip install "hins-memory[langgraph]"'
    attaching = "hins_adapter_langgraph.attaching"

    def is_ours(self, memory: Any) -> bool:
        """Return whether an object is a LangGraph store; when langgraph was never imported, nothing can be one."""
        if "langgraph.store.base" not in sys.modules:
            return False
        from langgraph.store.base import BaseStore

        return isinstance(memory, BaseStore)


plugin = LangGraphPlugin()
