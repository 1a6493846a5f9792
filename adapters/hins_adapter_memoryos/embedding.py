"""Replaces MemoryOS's module-level `get_embedding`, for the operations of attached objects only.

MemoryOS's parts call one function of their module. It is replaced by one that looks at which operation is running in
this thread: an operation of an attached part is served by that part's encoder; everything else, which includes every
object that is not attached, gets MemoryOS's own function.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from hins_adapter_memoryos.encoders import FrameworkEncoder
from hins_adapter_memoryos.files import encodable
from hins_memory.registry.loader import TextEncoder
from hins_memory.sdk.context import set_to
from hins_memory.types import Role

__all__ = ["Operation", "current_operation", "install", "running", "uninstall"]


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation of a part of MemoryOS: which part, with which encoder, and the side of the search it embeds."""

    part: Any
    encoder: TextEncoder
    role: Role


_operation: ContextVar[Operation | None] = ContextVar("hins_memoryos_operation", default=None)
_installed: dict[ModuleType, int] = {}
# Reentrant: a finalizer may run while this very thread holds it.
_lock = threading.RLock()


def current_operation() -> Operation | None:
    """Return the operation that runs in this thread, if any."""
    return _operation.get()


def running(operation: Operation) -> AbstractContextManager[Operation]:
    """Make an operation the one that runs inside the block."""
    return set_to(_operation, operation)


def _replacement(original: Callable[..., Any]) -> Callable[..., Any]:
    def get_embedding(text: Any, *args: Any, **kwargs: Any) -> Any:
        operation = _operation.get()
        if operation is None or isinstance(operation.encoder, FrameworkEncoder):
            return original(text, *args, **kwargs)
        # The part's encoder is used whatever model MemoryOS names: vectors of two encoders cannot be compared.
        return operation.encoder.encode([encodable(text)], role=operation.role)[0]

    get_embedding.hins_original = original  # type: ignore[attr-defined]  # functions take attributes
    return get_embedding


def install(modules: tuple[ModuleType, ...]) -> None:
    """Replace `get_embedding` in modules; calls are counted, and each needs one `uninstall`."""
    with _lock:
        for module in modules:
            # Counted first: a finalizer that runs between the two lines must not take this for the last use.
            _installed[module] = _installed.get(module, 0) + 1
            if not hasattr(module.get_embedding, "hins_original"):
                module.get_embedding = _replacement(module.get_embedding)  # type: ignore[attr-defined]


def uninstall(modules: tuple[ModuleType, ...]) -> None:
    """Restore modules after their last use; may be called by a finalizer."""
    with _lock:
        for module in modules:
            _installed[module] -= 1
            if not _installed[module]:
                del _installed[module]
                found: Any = module.get_embedding
                if hasattr(found, "hins_original"):
                    module.get_embedding = found.hins_original  # type: ignore[attr-defined]
