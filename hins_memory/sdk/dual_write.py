"""Copies writes to a second index while a swap builds it, and keeps those that did not reach it yet."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from hins_memory.errors import AgentError, LogError
from hins_memory.plugins.protocols import Index, same_record
from hins_memory.sdk.retry import TRIES, TRY_SECONDS

if TYPE_CHECKING:
    from hins_memory.plugins.protocols import Record
    from hins_memory.registry.loader import TextEncoder

__all__ = ["DualWriter", "TrackedIndex", "WriteTracker"]

logger = logging.getLogger(__name__)

# How often rows are copied again because another process changed the source meanwhile.
_ROUNDS = 20


class TrackedIndex(Index, Protocol):
    """An index whose writes are tracked, so that a shadow can be kept in step with it."""

    @property
    def writes(self) -> WriteTracker:
        """The tracker of the agent's writes to this index; one object for each store, however often it is opened."""

    def record_id(self, id_: Any) -> str:
        """Return the one spelling of an id under which records are known here."""

    def clear(self) -> None:
        """Delete every record."""


class WriteTracker:
    """Around each write of one store: records the ids for a rollback, and copies the rows to a shadow.

    Args:
        name: the store's name, for messages.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        #: copies writes to a shadow; None while there is no shadow
        self.dual: DualWriter | None = None
        #: called after each write, before it is copied: it may set `dual`
        self.refresh: Callable[[], None] | None = None
        #: called with the ids before each write, for a rollback; returns whether there is an index to return to
        self.record_changes: Callable[[Sequence[Any]], bool] | None = None
        # Rows that were written while `refresh` failed, and rows that could not be recorded for a rollback yet.
        self._uncertain: dict[Any, None] = {}
        self._unrecorded: dict[Any, None] = {}

    @contextmanager
    def tracked(self, ids: Sequence[Any]) -> Iterator[None]:
        """Around each write of the agent: record the ids before it, and copy the rows to the shadow after it.

        Also after an error: the store may have written all the same.
        """
        self._about_to_write(ids)
        try:
            yield
        finally:
            self._written(ids)

    @asynccontextmanager
    async def tracked_async(self, ids: Sequence[Any]) -> AsyncIterator[None]:
        """Do the same as `tracked` around a write that is awaited; recording and copying are done in another thread."""
        await asyncio.to_thread(self._about_to_write, ids)
        try:
            yield
        finally:
            await asyncio.to_thread(self._written, ids)

    def copy_clear(self) -> None:
        """Delete every row of the shadow, after every row of the store was deleted."""
        if self.refresh is not None:
            self.refresh()
        if self.dual is not None:
            self.dual.target.clear()

    @property
    def up_to_date(self) -> bool:
        """Whether every known write has reached the shadow, if there is one."""
        return not self._uncertain and (self.dual is None or self.dual.up_to_date)

    def flush_uncertain(self) -> None:
        """Copy the rows that were written while it was not known whether there is a shadow."""
        dual, uncertain = self.dual, list(self._uncertain)
        if dual is not None and uncertain:
            dual.copy(uncertain)
        for id_ in uncertain:
            self._uncertain.pop(id_, None)

    def _about_to_write(self, ids: Sequence[Any]) -> None:
        if self.record_changes is None:
            return
        self._unrecorded.update(dict.fromkeys(ids))
        try:
            if not self.record_changes(list(self._unrecorded)):
                self.record_changes = None
        except LogError as error:
            logger.warning("A write is recorded for a rollback later: %s", error)
        else:
            self._unrecorded.clear()

    def _written(self, ids: Sequence[Any]) -> None:
        # Refreshed after the write: a shadow that is created later copies the write from the store itself.
        if self.refresh is not None:
            try:
                self.refresh()
            except LogError as error:
                # The write is done, and the agent goes on; no process can flip without the log either.
                logger.warning("Whether %s is being swapped is not known now: %s", self.name, error)
                self._uncertain.update(dict.fromkeys(ids))
            else:
                self.flush_uncertain()
        dual = self.dual
        if dual is not None:
            dual.copy(ids)


class DualWriter:
    """Keeps a shadow index in step with the writes to its source, by copying the state of the rows written.

    The rows are read from the source and copied under one lock, so that the order of concurrent writes of this process
    does not matter. The order between processes does not matter either: after each copy the source is read again, and
    copied again if it has changed, so that the last copy is of the source's last state.

    Args:
        source: the index that serves.
        target: the shadow.
        encoder: the shadow's encoder.
        lock: excludes the other writers of the shadow in this process.
        failed: called when writes could not be copied to a shadow; they are kept.
    """

    def __init__(
        self,
        source: TrackedIndex,
        target: TrackedIndex,
        encoder: TextEncoder,
        lock: threading.RLock,
        failed: Callable[[], None] = lambda: None,
    ) -> None:
        self.source = source
        self.target = target
        self.encoder = encoder
        #: whether the target serves now: then a copy that fails is an error for the caller
        self.serving = False
        self._lock = lock
        self._failed = failed
        self._pending: dict[str, None] = {}

    @property
    def up_to_date(self) -> bool:
        """Whether every known write has reached the shadow."""
        return not self._pending

    def copy(self, ids: Iterable[Any]) -> None:
        """Copy the rows of these ids to the shadow; never raises while it is a shadow."""
        keys = [self.source.record_id(id_) for id_ in ids]
        with self._lock:
            self._pending.update(dict.fromkeys(keys))
        for attempt in range(TRIES):
            try:
                # Encoding here fills the encoder's cache, so that the lock below is held for the writing only.
                self.encoder.encode([record.text for record in self.source.get(keys)], role="document")
                with self._lock:
                    self.flush()
                break
            except Exception:
                if attempt + 1 < TRIES:
                    time.sleep(TRY_SECONDS)
                elif self.serving:
                    raise
                else:
                    name = self.target.name
                    logger.exception("%d writes did not reach the shadow %s yet; they are kept", len(keys), name)
                    self._failed()
                    return
        # For an operation that began before the last two swaps: copy on to the index that serves now.
        follower = self.target.writes.dual
        if follower is not None:
            follower.copy(keys)

    def flush(self) -> None:
        """Copy the rows that did not reach the shadow; the caller holds the lock."""
        keys = list(self._pending)
        for _ in range(_ROUNDS):
            if not keys:
                self._pending.clear()
                return
            copied = self._copy(keys)
            now = {record.id: record for record in self.source.get(keys)}
            keys = [key for key in keys if not same_record(copied.get(key), now.get(key))]
        raise AgentError(f"{len(keys)} records of {self.source.name} keep changing, e.g. {keys[0]!r}.")

    def _copy(self, keys: Sequence[str]) -> dict[str, Record]:
        records = {record.id: record for record in self.source.get(keys)}
        if records:
            texts = [record.text for record in records.values()]
            self.target.upsert(list(records.values()), self.encoder.encode(texts, role="document"))
        gone = [key for key in keys if key not in records]
        if gone:
            self.target.delete(gone)
        return records
