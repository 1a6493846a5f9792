"""The plugin of the Hindsight adapter; importing this imports neither hindsight_api nor torch."""

from __future__ import annotations

from typing import Any

from hins_memory.sdk import AttachOptions, ObjectPlugin
from hins_memory.sdk.plugin import Capability

__all__ = ["plugin"]


class HindsightPlugin(ObjectPlugin):
    """The hooks of the Hindsight adapter."""

    name = "hindsight"
    package = "hindsight_api"
    memory_class = "hindsight_api.engine.memory_engine:MemoryEngine"
    install = 'pip install "hins-memory[hindsight]"'
    agent_type = "hins_adapter_hindsight.agent:HindsightAgent"
    # Towers work too, but the suite reads the vectors to see that they stay: these cannot be listed.
    capabilities: frozenset[Capability] = frozenset({"capture", "serve"})

    def attach(self, memory: Any, options: AttachOptions) -> Any:
        """Let the agent's extension and embeddings take the place of the engine's."""
        attached = super().attach(memory, options)
        vars(attached).update(vars(attached)["hins"].parts())
        return attached

    def detach(self, memory: Any) -> Any:
        """Restore an engine exactly as it was."""
        agent: Any = vars(memory).get("hins")
        detached = super().detach(memory)
        vars(detached).update(agent.own_parts)
        return detached


plugin = HindsightPlugin()
