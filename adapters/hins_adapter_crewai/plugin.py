"""The plugin of the CrewAI adapter; importing this imports neither crewai nor torch."""

from __future__ import annotations

from typing import Any

from hins_memory.sdk import ObjectPlugin

__all__ = ["plugin"]


class CrewAIPlugin(ObjectPlugin):
    """The hooks of the CrewAI adapter."""

    name = package = "crewai"
    memory_class = "crewai.memory.unified_memory:Memory"
    install = 'pip install "hins-memory[crewai]"'
    agent_type = "hins_adapter_crewai.agent:CrewAIAgent"

    def detach(self, memory: Any) -> Any:
        """Restore a memory exactly as it was, after what it still stores in the background."""
        memory.drain_writes()
        return super().detach(memory)


plugin = CrewAIPlugin()
