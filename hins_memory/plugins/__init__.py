"""What a plugin is: the hooks that it may implement and the protocols that its objects satisfy.

In: installed entry points of the group ``hins_memory``. Out: the plugin manager, and events after redaction.
"""

from hins_memory.plugins.hookspecs import hookimpl
from hins_memory.plugins.manager import broken_plugins, get_plugin_manager, redact
from hins_memory.plugins.protocols import Agent, Index, Ranking, Record, check_agent, ranking_of

__all__ = [
    "Agent",
    "Index",
    "Ranking",
    "Record",
    "broken_plugins",
    "check_agent",
    "get_plugin_manager",
    "hookimpl",
    "ranking_of",
    "redact",
]
