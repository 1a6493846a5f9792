"""A storage of CrewAI whose writes are tracked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

__all__ = ["TrackedStorage"]


class TrackedStorage:
    """In the place of a memory's storage for one operation: that of the encoder that serves.

    Args:
        index: what serves.
        stored: called with the records that were stored.
        gone: called with the rows that were deleted.
    """

    def __init__(
        self, index: Any, stored: Callable[[Sequence[Any]], None], gone: Callable[[Sequence[Any]], None]
    ) -> None:
        self._index = index
        self._stored = stored
        self._gone = gone

    def __getattr__(self, name: str) -> Any:
        return getattr(self._index.store, name)

    def save(self, records: list[Any]) -> None:
        """Store records."""
        with self._index.writes.tracked([record.id for record in records]):
            self._index.store.save(records)
        self._stored(records)

    def update(self, record: Any) -> None:
        """Replace a record; CrewAI forgets the source of one that it merges with another."""
        if record.source is None and (known := self._index.store.get_record(record.id)) is not None:
            record = record.model_copy(update={"source": known.source, "private": known.private})
        with self._index.writes.tracked([record.id]):
            self._index.store.update(record)
        self._stored([record])

    def delete(self, *args: Any, record_ids: list[str] | None = None, **filters: Any) -> int:
        """Delete records."""
        with self._deleting(record_ids):
            return int(self._index.store.delete(*args, record_ids=record_ids, **filters))

    def reset(self, scope_prefix: str | None = None) -> None:
        """Delete everything, or everything in a scope."""
        with self._deleting(None):
            self._index.store.reset(scope_prefix)

    @contextmanager
    def _deleting(self, ids: Sequence[str] | None) -> Iterator[None]:
        rows = self._index.get(self._index.ids() if ids is None else ids)
        with self._index.writes.tracked([row.id for row in rows]):
            yield
        left = {row.id for row in self._index.get([row.id for row in rows])}
        self._gone([row for row in rows if row.id not in left])
