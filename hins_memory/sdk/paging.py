"""Paging through an index by its ids."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hins_memory.plugins.protocols import Record

__all__ = ["pages_of"]


def pages_of(ids: Sequence[str], get: Callable[[Sequence[str]], list[Record]], size: int) -> Iterator[list[Record]]:
    """Yield the records of these ids, at most `size` at a time; what is deleted meanwhile makes no gap."""
    for start in range(0, len(ids), size):
        if found := get(ids[start : start + size]):
            yield found
