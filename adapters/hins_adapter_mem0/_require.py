"""One message for a missing mem0, wherever it is noticed."""

from __future__ import annotations

from importlib import import_module

from hins_memory.errors import AgentError

__all__ = ["require_mem0"]


def require_mem0() -> None:
    """Import mem0, or raise an `AgentError` with the pip command when it is not installed."""
    try:
        import_module("mem0")
    except ModuleNotFoundError as error:
        if error.name != "mem0":
            raise
        raise AgentError("Mem0 is not installed.", 'Install it with: pip install "hins-memory[mem0]"') from error
