"""The agents of this process, one for each store, so that a flip reaches all objects that use it."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

__all__ = ["AgentTable"]

_Agent = TypeVar("_Agent")


class AgentTable(Generic[_Agent]):
    """The agents that are open in this process, by what identifies their stores; held weakly."""

    def __init__(self) -> None:
        #: held while an agent is opened or closed
        self.lock = threading.RLock()
        self._agents: weakref.WeakValueDictionary[Hashable, _Agent] = weakref.WeakValueDictionary()

    def get_or_open(self, name: Hashable, make: Callable[[], _Agent]) -> _Agent:
        """Return the agent of a store, made by `make` if there is none.

        Args:
            name: identifies the store, and the project's database with it.
            make: opens the agent; no other thread opens one meanwhile.
        """
        with self.lock:
            agent = self._agents.get(name)
            if agent is None:
                agent = self._agents[name] = make()
            return agent

    def remove(self, agent: _Agent) -> None:
        """Forget an agent that was closed."""
        with self.lock:
            for name in [name for name, known in self._agents.items() if known is agent]:
                del self._agents[name]
