"""The plugin of the Graphiti adapter; importing this imports neither graphiti_core nor torch."""

from __future__ import annotations

from hins_memory.sdk import ObjectPlugin

__all__ = ["plugin"]


class GraphitiPlugin(ObjectPlugin):
    """The hooks of the Graphiti adapter."""

    name = "graphiti"
    package = "graphiti_core"
    memory_class = "graphiti_core.graphiti:Graphiti"
    install = 'pip install "hins-memory[graphiti]"'
    agent_type = "hins_adapter_graphiti.agent:GraphitiAgent"


plugin = GraphitiPlugin()
