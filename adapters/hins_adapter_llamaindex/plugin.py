"""The plugin of the LlamaIndex adapter; importing this imports neither llama_index nor torch."""

from __future__ import annotations

import sys
from typing import Any

from hins_memory.sdk import ObjectAgent, ObjectPlugin

__all__ = ["plugin"]


class LlamaIndexPlugin(ObjectPlugin):
    """The hooks of the LlamaIndex adapter."""

    name = "llamaindex"
    package = "llama_index"
    install = 'pip install "hins-memory[llamaindex]"'

    def is_ours(self, memory: Any) -> bool:
        """Return whether an object is a `VectorMemoryBlock`; when LlamaIndex was never imported, nothing can be one."""
        if "llama_index.core.memory" not in sys.modules:
            return False
        from llama_index.core.memory import VectorMemoryBlock

        return isinstance(memory, VectorMemoryBlock)

    def load_agent_type(self) -> type[ObjectAgent]:
        """Return the class of the agents."""
        from hins_adapter_llamaindex.agent import LlamaIndexAgent

        return LlamaIndexAgent


plugin = LlamaIndexPlugin()
