"""Many items, some of them at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

__all__ = ["chunks_of"]

_Item = TypeVar("_Item")


def chunks_of(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    """Yield all items in their order, at most `size` at a time, e.g. as many ids as one statement may name.

    Raises:
        ValueError: `size` is not at least 1.
    """
    if size < 1:
        raise ValueError(f"{size} items at a time; use at least 1")
    left = iter(items)
    while some := list(islice(left, size)):
        yield some
