"""The plugin of the LlamaIndex adapter; importing this imports neither llama_index nor torch."""

from __future__ import annotations

from hins_memory.sdk import ObjectAgent, ObjectPlugin

__all__ = ["plugin"]


class LlamaIndexPlugin(ObjectPlugin):
    """The hooks of the LlamaIndex adapter."""

    name = "llamaindex"
    package = "llama_index"
    memory_class = "llama_index.core.memory:VectorMemoryBlock"
    install = 'pip install "hins-memory[llamaindex]"'

    def load_agent_type(self) -> type[ObjectAgent]:
        """Return the class of the agents."""
        from hins_adapter_llamaindex.agent import LlamaIndexAgent

        return LlamaIndexAgent


plugin = LlamaIndexPlugin()
