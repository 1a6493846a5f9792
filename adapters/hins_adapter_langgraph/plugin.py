"""The plugin of the LangGraph adapter; importing this imports neither langgraph nor torch."""

from __future__ import annotations

from hins_memory.sdk.plugin import AdapterPlugin

__all__ = ["plugin"]


class LangGraphPlugin(AdapterPlugin):
    """The hooks of the LangGraph adapter."""

    name = package = "langgraph"
    memory_class = "langgraph.store.base:BaseStore"
    install = 'pip install "hins-memory[langgraph]"'
    attaching = "hins_adapter_langgraph.attaching"


plugin = LangGraphPlugin()
