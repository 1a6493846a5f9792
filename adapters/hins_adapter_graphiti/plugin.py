"""The plugin of the Graphiti adapter; importing this imports neither graphiti_core nor torch."""

from __future__ import annotations

from typing import Any

from hins_memory.sdk import AttachOptions, ObjectAgent, ObjectPlugin

__all__ = ["plugin"]


class GraphitiPlugin(ObjectPlugin):
    """The hooks of the Graphiti adapter."""

    name = "graphiti"
    package = "graphiti_core"
    memory_class = "graphiti_core.graphiti:Graphiti"
    install = 'pip install "hins-memory[graphiti]"'

    def load_agent_type(self) -> type[ObjectAgent]:
        """Return the class of the agents."""
        from hins_adapter_graphiti.agent import GraphitiAgent

        return GraphitiAgent

    def attach(self, memory: Any, options: AttachOptions) -> Any:
        """Let the agent's methods, driver and embedder take the place of the object's."""
        attached = super().attach(memory, options)
        vars(attached).update(vars(attached)["hins"].parts())
        return attached

    def detach(self, memory: Any) -> Any:
        """Restore an object exactly as it was."""
        agent: Any = vars(memory).get("hins")
        detached = super().detach(memory)
        vars(detached).update(agent.own_parts)
        return detached


plugin = GraphitiPlugin()
