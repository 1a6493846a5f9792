"""Other values of the miner's constants, for rows that show what a constant is worth."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

__all__ = ["replaced"]


@contextmanager
def replaced(module: ModuleType, name: str, value: Any) -> Iterator[None]:
    """Let a constant of a module have another value until the block ends."""
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)
