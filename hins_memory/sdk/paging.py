"""Going through the ids of an index, some at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from hins_memory.plugins.protocols import Record

__all__ = ["chunks_of", "pages_of"]

_Item = TypeVar("_Item")


def chunks_of(items: Sequence[_Item], size: int) -> Iterator[Sequence[_Item]]:
    """Yield all items in their order, at most `size` at a time, e.g. as many ids as one statement may name."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def pages_of(ids: Sequence[str], get: Callable[[Sequence[str]], list[Record]], size: int) -> Iterator[list[Record]]:
    """Yield the records of these ids, at most `size` at a time; what is deleted meanwhile makes no gap."""
    for some in chunks_of(ids, size):
        if found := get(some):
            yield found
