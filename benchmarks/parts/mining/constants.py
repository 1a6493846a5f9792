"""Other values of the package's constants and functions, for rows that show what they are worth."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

__all__ = ["replaced"]


@contextmanager
def replaced(owner: ModuleType | type, name: str, value: Any) -> Iterator[None]:
    """Let a constant of a module, or a method of a class, be another until the block ends."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)
