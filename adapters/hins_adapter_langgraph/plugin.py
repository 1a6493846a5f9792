"""The plugin of the LangGraph adapter; importing this imports neither langgraph nor torch."""

from __future__ import annotations

from typing import Any

from hins_memory.errors import AgentError
from hins_memory.sdk import AttachOptions, ObjectAgent, ObjectPlugin

__all__ = ["plugin"]


class LangGraphPlugin(ObjectPlugin):
    """The hooks of the LangGraph adapter; what is attached to is a `HinsStore` around a store, which stays as it is."""

    name = package = "langgraph"
    memory_class = "langgraph.store.base:BaseStore"
    install = 'pip install "hins-memory[langgraph]"'

    def attach(self, memory: Any, options: AttachOptions) -> Any:
        """Return a store that records the use of another; attaching again replaces the options."""
        from hins_adapter_langgraph.store import HinsStore

        if isinstance(memory, HinsStore):
            return HinsStore(self.detach(memory), namespace=memory.namespace, **vars(options))
        return HinsStore(memory, **vars(options))

    def detach(self, memory: Any) -> Any:
        """Return the store that was attached to.

        Raises:
            AgentError: it is not attached.
        """
        from hins_adapter_langgraph.store import HinsStore

        if not isinstance(memory, HinsStore):
            raise AgentError(f"This {type(memory).__name__} is not attached.", "There is nothing to undo.")
        memory.close()
        return memory.inner

    def agent_of(self, memory: Any) -> ObjectAgent | None:
        """Return the agent of an attached store; None where it is not attached.

        Raises:
            AgentError: the store has no index.
        """
        from hins_adapter_langgraph.store import HinsStore

        if not isinstance(memory, HinsStore):
            return None
        if (agent := super().agent_of(memory)) is None:
            raise AgentError(
                "This LangGraph store has no index, so that there is nothing to swap.", "Make it with index={...}."
            )
        return agent


plugin = LangGraphPlugin()
