"""A long sequence, some of it at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

__all__ = ["chunks_of"]

_Item = TypeVar("_Item")


def chunks_of(items: Sequence[_Item], size: int) -> Iterator[Sequence[_Item]]:
    """Yield all items in their order, at most `size` at a time, e.g. as many ids as one statement may name."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
