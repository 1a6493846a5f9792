"""The queue between an agent and the log's writer: bounded in retrievals and in bytes."""

from __future__ import annotations

import logging
import sys
import threading
from collections import deque

from hins_memory.types import Answer, Deletion, Event, Memory, Retrieval, Turn

__all__ = ["MAX_RETRIEVALS", "EventQueue"]

logger = logging.getLogger(__name__)

#: How many retrievals may wait for the writer before the oldest are dropped.
MAX_RETRIEVALS = 10_000
#: What an event takes beside its long texts, in bytes.
_BASE_BYTES = 1000
_RESULT_BYTES = 250


class EventQueue:
    """A thread-safe first-in first-out queue of events that holds a bounded number of retrievals, and of bytes.

    A new retrieval beyond `MAX_RETRIEVALS` pushes the oldest out. Beyond `max_bytes` the oldest retrievals go first.
    Only when there are none left do the oldest other events go too: turns, memories and outcomes, never deletions. An
    event that is larger than that alone is not taken. `pushed_out` counts all of them, and `pushed_out_others` those
    that are not retrievals.

    `take` hands out a chunk, which counts as waiting until `taken_is_done`. Events are numbered from 1.
    """

    def __init__(self, max_bytes: int) -> None:
        # Reentrant: a signal handler or a finalizer may record while this very thread holds it.
        self.lock = threading.RLock()
        self.last = 0
        self.pushed_out = 0
        self.pushed_out_others = 0
        self.bytes = 0
        self._max_bytes = max_bytes
        self._done = 0
        self._events: dict[int, tuple[Event, int]] = {}
        # The numbers of what may be pushed out, oldest first.
        self._retrievals: deque[int] = deque()
        self._others: deque[int] = deque()
        self._taken: list[int] = []
        self._changed = threading.Condition(self.lock)

    def __len__(self) -> int:
        with self.lock:
            return len(self._events) + len(self._taken)

    def put(self, event: Event) -> None:
        """Add an event and make room for it; microseconds."""
        size = _bytes_of(event)
        with self.lock:
            self.last += 1
            if size > self._max_bytes:
                self._count(isinstance(event, Retrieval))
                return
            self._events[self.last] = (event, size)
            self.bytes += size
            if isinstance(event, Retrieval):
                self._retrievals.append(self.last)
                if len(self._retrievals) > MAX_RETRIEVALS:
                    self._push_out()
            elif not isinstance(event, Deletion):
                self._others.append(self.last)
            while self.bytes > self._max_bytes and (self._retrievals or self._others):
                self._push_out()

    def _push_out(self) -> None:
        retrieval = bool(self._retrievals)
        _, size = self._events.pop((self._retrievals or self._others).popleft())
        self.bytes -= size
        self._count(retrieval)

    def _count(self, retrieval: bool) -> None:
        self.pushed_out += 1
        if not retrieval:
            if not self.pushed_out_others:
                logger.warning("The log's writer is far behind: turns, memories or outcomes found no room and are lost")
            self.pushed_out_others += 1

    def take(self, count: int, max_bytes: int) -> list[Event]:
        """Return the next events, at most `count`, and at most `max_bytes` unless the first alone has more."""
        with self.lock:
            numbers: list[int] = []
            total = 0
            for number, (_, size) in self._events.items():
                total += size
                if len(numbers) == count or (numbers and total > max_bytes):
                    break
                numbers.append(number)
            taken = [self._events.pop(number) for number in numbers]
            self.bytes -= sum(size for _, size in taken)
            for waiting in (self._retrievals, self._others):
                while waiting and numbers and waiting[0] <= numbers[-1]:
                    waiting.popleft()
            self._taken = numbers
            if not numbers:
                self._finish(self.last)
            return [event for event, _ in taken]

    def finish_taken(self) -> None:
        """Mark the chunk that was taken as done, whether it was written or lost."""
        with self.lock:
            if self._taken:
                self._finish(self._taken[-1])
            self._taken = []

    def abandon(self) -> int:
        """Forget everything that waits and return how many events that were."""
        with self.lock:
            count = len(self)
            self._events, self._taken = {}, []
            self._retrievals.clear()
            self._others.clear()
            self.bytes = 0
            return count

    def wait(self, number: int, timeout: float) -> bool:
        """Wait until every event up to `number` is done; return whether it is within `timeout` seconds."""
        with self.lock:
            return self._changed.wait_for(lambda: self._done >= number, timeout)

    def _finish(self, number: int) -> None:
        self._done = max(self._done, number)
        self._changed.notify_all()


def _bytes_of(event: Event) -> int:
    """Return about how much memory an event takes; its fields may be of any type."""
    if isinstance(event, (Turn, Memory, Answer)):
        return _BASE_BYTES + sys.getsizeof(event.text, 0)
    if isinstance(event, Retrieval):
        size = _BASE_BYTES + sys.getsizeof(event.query, 0)
        results = event.results
        if isinstance(results, (tuple, list)):
            size += sum(_RESULT_BYTES + sys.getsizeof(getattr(result, "text", ""), 0) for result in results)
        return size
    return _BASE_BYTES
