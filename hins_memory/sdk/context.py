"""Context variables that have a value inside a block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

__all__ = ["set_to"]

_Value = TypeVar("_Value")


@contextmanager
def set_to(variable: ContextVar[Any], value: _Value) -> Iterator[_Value]:
    """Give a context variable a value inside the block, also in tasks that are started there."""
    token = variable.set(value)
    try:
        yield value
    finally:
        variable.reset(token)
