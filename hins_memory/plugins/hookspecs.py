"""The hooks that a plugin may implement (pluggy, prefix ``hins_``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from hins_memory.config import Settings
    from hins_memory.plugins.protocols import Agent
    from hins_memory.types import Event

__all__ = ["hookimpl", "hookspec"]

hookspec = pluggy.HookspecMarker("hins_memory")
#: Marks a plugin's function as an implementation of one of the hooks below.
hookimpl = pluggy.HookimplMarker("hins_memory")


@hookspec
def hins_agent_names() -> list[str]:  # type: ignore[empty-body]
    """Return the names of the agent frameworks that this plugin adapts."""


@hookspec
def hins_missing() -> str:  # type: ignore[empty-body]
    """Return the command that installs the framework that the plugin needs, or "" when it is installed."""


@hookspec(firstresult=True)
def hins_attach(memory: Any, options: Mapping[str, Any]) -> Any:
    """Attach to a live agent object and return it, or return None for an object of another framework."""


@hookspec(firstresult=True)
def hins_detach(memory: Any) -> Any:
    """Undo `hins_attach` and return the object as it was, or return None for an object of another framework."""


@hookspec(firstresult=True)
def hins_agent(memory: Any) -> Agent | None:
    """Return the `Agent` of a live, attached agent object, or None for an object of another framework."""


@hookspec(firstresult=True)
def hins_open_agent(name: str, settings: Settings, config: Mapping[str, Any] | None) -> Any:
    """Open a framework's agent by name for the command line; return it attached, or None for another name."""


@hookspec
def hins_redact(event: Event) -> Event | None:
    """Return an event as it may be written to the log (changed or not), or None to leave it out.

    Called before anything is written, in a thread of its own. An implementation that raises, or takes over half a
    minute, keeps the event out of the log; that is counted as lost (`Capture.stats`). A hook that hangs keeps a thread;
    while four hang, nothing is recorded.
    """
