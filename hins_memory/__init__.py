"""hins-memory: make a memory agent retrieve the right memory by training its encoder on its own traffic.

Every name here is imported when it is first used, so that ``import hins_memory`` loads neither torch nor an agent
framework.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from hins_memory import _old_names

if TYPE_CHECKING:
    from hins_adapter_mem0 import AsyncMemory, Memory

    from hins_memory.config import Settings
    from hins_memory.encoders.encoder import Encoder
    from hins_memory.errors import HinsError
    from hins_memory.loop.labelled import compare_encoders, train_encoder
    from hins_memory.loop.pipeline import Pipeline

    __version__: str

__all__ = [
    "AsyncMemory",
    "Encoder",
    "HinsError",
    "Memory",
    "Pipeline",
    "Settings",
    "__version__",
    "attach",
    "compare_encoders",
    "detach",
    "train_encoder",
]

_HOMES = {
    "AsyncMemory": "hins_adapter_mem0",
    "Encoder": "hins_memory.encoders.encoder",
    "HinsError": "hins_memory.errors",
    "Memory": "hins_adapter_mem0",
    "Pipeline": "hins_memory.loop.pipeline",
    "Settings": "hins_memory.config",
    "compare_encoders": "hins_memory.loop.labelled",
    "train_encoder": "hins_memory.loop.labelled",
}

_AgentObject = TypeVar("_AgentObject")

_old_names.install()


def attach(memory: _AgentObject, **options: Any) -> _AgentObject:
    """Make an existing agent object record its use and, if asked, embed with the project's encoder.

    The object stays the same, but for LangGraph, whose stores are wrapped. Which objects are known depends on the
    installed plugins; of Mem0, `mem0.Memory` and `mem0.AsyncMemory`.

    Args:
        memory: the agent object.
        options: what the plugin takes; for Mem0 ``embedder`` (None, ``"hins"`` or ``"stock"``), ``reembed``,
            ``capture``, ``project``, ``settings`` and ``model``.

    Returns:
        `memory` itself; of LangGraph a `HinsStore` around it.

    Raises:
        AgentError: no installed plugin knows the object, or it cannot be attached as asked.
        ConfigError: an option is not valid.

    Example:
        memory = mem0.Memory()
        hins_memory.attach(memory)
    """
    from hins_memory.plugins.manager import get_plugin_manager

    attached: _AgentObject | None = get_plugin_manager().hook.hins_attach(memory=memory, options=options)
    if attached is None:
        raise _unknown(memory)
    return attached


def detach(memory: _AgentObject) -> _AgentObject:
    """Restore an agent object exactly as it was before `attach`.

    Raises:
        AgentError: no installed plugin knows the object, or it is not attached.
    """
    from hins_memory.plugins.manager import get_plugin_manager

    detached: _AgentObject | None = get_plugin_manager().hook.hins_detach(memory=memory)
    if detached is None:
        raise _unknown(memory)
    return detached


def _unknown(memory: object) -> HinsError:
    from hins_memory.errors import AgentError
    from hins_memory.plugins.manager import broken_plugins, get_plugin_manager

    names = sorted(name for found in get_plugin_manager().hook.hins_agent_names() for name in found)
    broken = "".join(
        f" The plugin {name!r} could not be loaded: {reason}." for name, reason in broken_plugins().items()
    )
    kind = f"{type(memory).__module__}.{type(memory).__qualname__}"
    return AgentError(
        f"No plugin knows what to do with an object of the type {kind}.",
        f"Agents that can be attached: {', '.join(names) or 'none'}.{broken}",
    )


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("hins-memory")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
