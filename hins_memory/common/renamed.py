"""Old names of a module that was documented under them: each still works and warns with the new name."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["old_names"]


def old_names(module: str, names: Mapping[str, tuple[str, Any]]) -> Callable[[str], Any]:
    """Return a ``__getattr__`` for a module.

    Args:
        module: the module's name.
        names: old name -> (new name, what the old name stands for).
    """

    def module_attribute(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        new, value = names[name]
        warnings.warn(f"{module}.{name} is now {new}.", DeprecationWarning, stacklevel=2)
        return value

    return module_attribute
