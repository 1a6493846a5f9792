"""Old names of what was documented under them: each still works and warns with the new name."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

__all__ = ["old_names", "renamed_arguments"]

_T = TypeVar("_T")


def renamed_arguments(names: Mapping[str, str]) -> Callable[[type[_T]], type[_T]]:
    """Return a decorator of a class that may be made with old names of its arguments, also by `dataclasses.replace`.

    Args:
        names: old name -> new name.
    """

    def decorate(kind: type[_T]) -> type[_T]:
        make = kind.__init__

        @functools.wraps(make)
        def init(self: _T, *args: Any, **values: Any) -> None:
            for old in names.keys() & values.keys():
                warnings.warn(f"{kind.__name__}({old}=) is now {names[old]}=.", DeprecationWarning, stacklevel=2)
                values[names[old]] = values.pop(old)
            make(self, *args, **values)

        setattr(kind, "__init__", init)  # noqa: B010  # mypy takes no assignment
        return kind

    return decorate


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
