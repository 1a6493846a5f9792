"""The plugin of the MemoryOS adapter; importing this imports neither memoryos nor torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hins_memory.errors import AgentError, ConfigError
from hins_memory.sdk.plugin import AdapterPlugin

if TYPE_CHECKING:
    from hins_adapter_memoryos.agent import MemoryosAgent
    from hins_memory.config import Settings
    from hins_memory.plugins.protocols import Agent

__all__ = ["OpenStore", "plugin"]


@dataclass(frozen=True)
class OpenStore:
    """A store that is open without a Memoryos, to be swapped."""

    agent: MemoryosAgent


class MemoryosPlugin(AdapterPlugin):
    """The hooks of the MemoryOS adapter."""

    name = package = "memoryos"
    # Its package pins versions of NumPy and faiss that no current Python has, hence the option.
    install = "pip install --no-deps memoryos-pro"
    install_needed = 'pip install "hins-memory[memoryos]"'
    attaching = "hins_adapter_memoryos.attaching"

    def is_ours(self, memory: Any) -> bool:
        """Return whether an object is a Memoryos, or a store that was opened by name."""
        from hins_adapter_memoryos.compat import is_memoryos

        return isinstance(memory, OpenStore) or is_memoryos(memory)

    def agent_of(self, memory: Any) -> Agent | None:
        """Return the agent behind an attached Memoryos, or behind a store that was opened by name."""
        return memory.agent if isinstance(memory, OpenStore) else super().agent_of(memory)

    def open(self, settings: Settings, config: Mapping[str, Any] | None) -> Any:
        """Open a MemoryOS store for the command line: its files are enough, and no language model is needed."""
        path = (config or {}).get("data_storage_path")
        if not isinstance(path, str) or not path:
            raise ConfigError(
                "MemoryOS keeps its files where its user says, which has to be known here.",
                'Give --agent-config a JSON file with {"data_storage_path": "..."}.',
            )
        root = Path(path).expanduser().resolve()
        if not root.is_dir():
            raise AgentError(f"There is no MemoryOS store in {root}.", "Check data_storage_path in the agent's config.")
        from hins_adapter_memoryos.agent import open_agent
        from hins_adapter_memoryos.encoders import FrameworkEncoder
        from hins_memory.sdk.opening import record_framework_encoder

        agent = open_agent(root, settings, FrameworkEncoder(), (config or {}).get("model"))
        record_framework_encoder(agent, agent.encoders.registry)
        return OpenStore(agent)


plugin = MemoryosPlugin()
