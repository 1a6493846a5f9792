"""One message for a missing memoryos, wherever it is noticed."""

from __future__ import annotations

from importlib import import_module

from hins_memory.errors import AgentError

__all__ = ["INSTALL", "require_memoryos"]

#: What installs MemoryOS. Its package pins versions of NumPy and faiss that no current Python has, hence the option.
INSTALL = "pip install --no-deps memoryos-pro"
_EXTRA = 'pip install "hins-memory[memoryos]"'


def require_memoryos() -> None:
    """Import memoryos, or raise an `AgentError` with the pip command for what is missing."""
    try:
        import_module("memoryos")
    except ModuleNotFoundError as error:
        if error.name == "memoryos":
            raise AgentError("MemoryOS is not installed.", f"Install it with: {INSTALL}") from error
        raise AgentError(
            f"MemoryOS is installed, but {error.name}, which it needs, is not.", f"Install it with: {_EXTRA}"
        ) from error
