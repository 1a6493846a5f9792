"""Plugin discovery: the plugin manager from entry points; a broken plugin is reported, never fatal."""

from __future__ import annotations

import functools
import importlib.metadata
import logging
from typing import TYPE_CHECKING, Any, cast

import pluggy

from hins_memory.errors import AgentError
from hins_memory.plugins import hookspecs
from hins_memory.plugins.protocols import check_agent
from hins_memory.types import Event

if TYPE_CHECKING:
    from hins_memory.plugins.protocols import Agent

__all__ = [
    "RedactionError",
    "agent_of",
    "broken_plugins",
    "capabilities_of",
    "get_plugin_manager",
    "plugin_packages",
    "redact",
    "redacts",
]

ENTRY_POINT_GROUP = "hins_memory"
logger = logging.getLogger(__name__)
# What an adapter can do that does not say.
_ALL = frozenset({"capture", "serve", "tower", "swap"})
_broken: dict[str, str] = {}


@functools.cache
def _entry_points() -> importlib.metadata.EntryPoints:
    # Reads a file of every installed package: over a hundredth of a second where there are hundreds.
    return importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)


@functools.cache
def get_plugin_manager() -> pluggy.PluginManager:
    """Return the process-wide plugin manager, with every installed plugin that could be loaded."""
    manager = pluggy.PluginManager("hins_memory")
    manager.add_hookspecs(hookspecs)
    for entry_point in _entry_points():
        # One by one, because load_setuptools_entrypoints stops at the first plugin that fails to import.
        try:
            loaded = entry_point.load()
            # A module of hooks, an object with hooks, or a module that names such an object.
            plugin = getattr(loaded, "plugin", loaded)
            if not manager.is_registered(plugin):
                manager.register(plugin, name=entry_point.name)
        except Exception as error:
            _broken[entry_point.name] = f"{type(error).__name__}: {error}"
            logger.warning("The plugin %r could not be loaded: %s", entry_point.name, error)
    return manager


def agent_of(memory: Any) -> Agent:
    """Return the agent that a plugin has for a live object.

    Raises:
        AgentError: hins is not attached to the object, or the agent lacks a member.
    """
    agent: Agent | None = get_plugin_manager().hook.hins_agent(memory=memory)
    if agent is None:
        raise AgentError(
            f"hins is not attached to this {type(memory).__name__} as its embedder.",
            'Use hins_memory.attach(memory, embedder="hins") first.',
        )
    check_agent(agent)
    return agent


def capabilities_of(name: str) -> frozenset[str]:
    """Return what the adapter of a framework can do (`hins_memory.sdk.Capability`), everything if it does not say."""
    plugins = (one for one in get_plugin_manager().get_plugins() if getattr(one, "name", "") == name)
    return next((frozenset(getattr(one, "capabilities", _ALL)) for one in plugins), _ALL)


def broken_plugins() -> dict[str, str]:
    """Return the plugins that could not be loaded, name -> reason."""
    get_plugin_manager()
    return dict(_broken)


def plugin_packages() -> list[str]:
    """Return the top-level packages of installed plugins, which are their loggers' names too; imports none of them."""
    return sorted({entry_point.module.split(".")[0] for entry_point in _entry_points()})


class RedactionError(Exception):
    """A `hins_redact` hook failed, by whatever it raised; the event must not be written."""


def redacts() -> bool:
    """Whether any plugin has a `hins_redact` hook."""
    return bool(get_plugin_manager().hook.hins_redact.get_hookimpls())


def redact(event: Event) -> Event | None:
    """Run an event through every `hins_redact` hook in turn; None means: do not write it.

    Raises:
        RedactionError: a hook raised something, which may be SystemExit.
    """
    current: Event | None = event
    for implementation in get_plugin_manager().hook.hins_redact.get_hookimpls():
        try:
            current = cast("Event | None", implementation.function(current))
        except BaseException as error:
            raise RedactionError(f"hins_redact of {implementation.plugin_name!r} failed") from error
        if current is None:
            return None
    return current
