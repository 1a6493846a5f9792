"""The plugin of the LlamaIndex adapter; importing this imports neither llama_index nor torch."""

from __future__ import annotations

from hins_memory.sdk import ObjectPlugin

__all__ = ["plugin"]


class LlamaIndexPlugin(ObjectPlugin):
    """The hooks of the LlamaIndex adapter."""

    name = "llamaindex"
    package = "llama_index"
    memory_class = "llama_index.core.memory:VectorMemoryBlock"
    install = 'pip install "hins-memory[llamaindex]"'
    agent_type = "hins_adapter_llamaindex.agent:LlamaIndexAgent"


plugin = LlamaIndexPlugin()
