"""Going through the ids of an index, some at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from hins_memory.common.chunks import chunks_of

if TYPE_CHECKING:
    from hins_memory.plugins.protocols import Record

__all__ = ["chunks_of", "pages_of"]


def pages_of(ids: Sequence[str], get: Callable[[Sequence[str]], list[Record]], size: int) -> Iterator[list[Record]]:
    """Yield the records of these ids, at most `size` at a time; what is deleted meanwhile makes no gap."""
    for some in chunks_of(ids, size):
        if found := get(some):
            yield found
