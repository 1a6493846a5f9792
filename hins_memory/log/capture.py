"""Capture: takes an agent's events off its hot path and writes them to the interaction log in a thread of its own."""

from __future__ import annotations

import atexit
import functools
import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import ParamSpec, TypeVar

import sqlalchemy as sa

from hins_memory.config import Settings
from hins_memory.database.engine import open_database
from hins_memory.errors import ConfigError, LogError
from hins_memory.log.writer import EventRefusedError, LogWriter
from hins_memory.plugins import manager as plugins
from hins_memory.types import Answer, Event, Feedback, Polarity, Retrieval

__all__ = ["Capture", "flush_all", "make_feedback", "never_raises"]

logger = logging.getLogger(__name__)

_Params = ParamSpec("_Params")
_Result = TypeVar("_Result")

#: Events in one transaction: large enough to be fast, small enough that no other process waits long.
_CHUNK = 500
_FIRST_RETRY_SECONDS = 0.1
_LAST_RETRY_SECONDS = 5.0
#: How long an outcome waits for a retrieval that another process has yet to write.
_OUTCOME_SECONDS = 5.0
_CLOSE_SECONDS = 5.0
_FORK_SECONDS = 1.0


class Capture:
    """Records an agent's events in a project's log without slowing the agent down or ever raising into it.

    `record` only appends to a queue; a daemon thread passes every event through the `hins_redact` hooks and commits
    it, so that everything older than one second is on disk. The queue holds at most `Settings.queue_size`
    retrievals: the oldest are dropped and counted when the writer cannot keep up. Turns, memories and deletions are
    never dropped, nor are outcomes, but for those of a retrieval that is not in the log. While the database cannot be
    written (full disk, lock), events are kept and tried again. The database is opened with the first event.

    May be shared by threads. A forked child starts with an empty queue and a writer of its own. What is still
    waiting is written at interpreter exit; `close` does the same earlier, and records nothing afterwards.

    Example:
        >>> with Capture(Settings()) as capture:  # doctest: +SKIP
        ...     capture.record(Turn(Scope(user="ann"), "monday", "Ann", "I moved to Oslo."))
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._closed = not settings.capture
        self._dropped = 0
        self._start_over()
        if settings.capture:
            _captures.add(self)
            # Here and not at the first event, because starting a thread takes milliseconds; it only waits until then.
            self._start_thread()

    def _start_over(self) -> None:
        """Begin with an empty queue and no thread: at first, and in a forked child."""
        self._queue = _Queue(self._settings.queue_size)
        self._wake = threading.Event()
        self._hurry = threading.Event()
        self._stopping = threading.Event()
        self._drain_lock = threading.Lock()
        self._write_lock = threading.Lock()
        self._chunk: list[Event] | None = None
        self._thread: threading.Thread | None = None
        self._engine: sa.Engine | None = None
        self._waiting: list[tuple[float, Answer | Feedback]] = []
        self._failing = False

    def __enter__(self) -> Capture:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def dropped(self) -> int:
        """How many recorded events never reach the log, redaction aside: 0 while all is well.

        Retrievals that a full queue pushed out, outcomes whose retrieval is not in the log, events that the database
        can never hold, and what could not be written before `close` gave up.
        """
        return self._dropped + self._queue.pushed_out

    def record(self, event: Event) -> None:
        """Queue an event; takes microseconds, never blocks on the disk and never raises."""
        if self._closed:
            return
        try:
            self._queue.put(event)
            if self._thread is None:
                self._start_thread()
            if not self._wake.is_set():
                self._wake.set()
        except Exception:
            logger.exception("An event could not be recorded")

    def flush(self, timeout: float = 5.0) -> bool:
        """Write everything recorded so far; return whether it was done within `timeout` seconds."""
        target = self._queue.last
        if self._queue.wait(target, 0):
            return True
        if self._stopping.is_set():
            return False
        self._hurry.set()
        self._wake.set()
        if not self._start_thread():
            # No thread can start while the interpreter ends: write from here, trying once.
            self._drain(patient=False)
            timeout = 0
        return self._queue.wait(target, timeout)

    def close(self, timeout: float = _CLOSE_SECONDS) -> None:
        """Write what is waiting, at most `timeout` seconds long, and stop; may be called again."""
        if self._closed:
            return
        self._closed = True
        _captures.discard(self)
        self.flush(timeout)
        self._stopping.set()
        self._hurry.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout=1.0)
        lost = self._queue.abandon() + len(self._waiting)
        if lost:
            self._dropped += lost
            logger.warning("%d events could not be written to the interaction log and are lost", lost)

    def _start_thread(self) -> bool:
        with self._queue.lock:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="hins-capture", daemon=True)
                try:
                    thread.start()
                except RuntimeError:
                    return False
                self._thread = thread
        return True

    def _run(self) -> None:
        while not self._stopping.is_set():
            # Without events there is nothing to do, and no timer runs; waiting outcomes are looked at now and then.
            self._wake.wait(timeout=_OUTCOME_SECONDS / 5 if self._waiting else None)
            if self._wake.is_set():
                # Events that come now, all at once, share a transaction. flush() and close() hurry.
                self._hurry.wait(timeout=self._settings.flush_seconds)
            self._wake.clear()
            self._hurry.clear()
            self._drain(patient=True)
        with self._write_lock:
            if self._engine is not None:
                self._engine.dispose()

    def _drain(self, patient: bool) -> None:
        """Write until the queue is empty; give up while the database fails if not `patient`, or at `close`."""
        with self._drain_lock:
            while self._chunk or self._take():
                try:
                    if not self._store(self._chunk or [], patient):
                        return
                except Exception:
                    self._dropped += len(self._chunk or [])
                    logger.exception("Events could not be recorded, by an error that was not foreseen")
                self._chunk = None
                self._queue.taken_is_done()
            if self._waiting:
                self._store([], patient=False)

    def _take(self) -> bool:
        """Take the next chunk from the queue and redact it, once; False when the queue is empty."""
        events = self._queue.take(_CHUNK)
        if not events:
            return False
        redacted = (plugins.redact(event) for event in events)
        self._chunk = [event for event in redacted if event is not None]
        return True

    def _store(self, events: list[Event], patient: bool) -> bool:
        """Write events, trying again while the database fails; return whether they are written."""
        delay = _FIRST_RETRY_SECONDS
        while True:
            try:
                with self._write_lock:
                    self._write(events)
            except LogError as error:
                if not self._failing:
                    logger.warning("The interaction log cannot be written; events are kept and tried again. %s", error)
                self._failing = True
                if self._stopping.is_set() or not patient:
                    return False
                self._hurry.wait(timeout=delay)
                self._hurry.clear()
                delay = min(2 * delay, _LAST_RETRY_SECONDS)
            else:
                if self._failing:
                    logger.warning("The interaction log can be written again")
                self._failing = False
                return True

    def _write(self, events: list[Event]) -> None:
        if self._engine is None:
            self._engine = open_database(self._settings.database_url)
        writer = LogWriter(self._engine)
        # Waiting outcomes come last: their retrieval may be among the events.
        batch = [*events, *(outcome for _, outcome in self._waiting)]
        try:
            left_out = writer.write(batch)
        except EventRefusedError:
            left_out = self._write_one_by_one(writer, batch)
        now = time.monotonic()
        since = {id(outcome): first for first, outcome in self._waiting}
        waiting = [(since.get(id(outcome), now), outcome) for outcome in left_out]
        self._waiting = [(first, outcome) for first, outcome in waiting if now - first < _OUTCOME_SECONDS]
        self._dropped += len(waiting) - len(self._waiting)

    def _write_one_by_one(self, writer: LogWriter, events: list[Event]) -> list[Answer | Feedback]:
        """Write a batch in which the database refuses an event: leave out that one and keep the rest."""
        left_out: list[Answer | Feedback] = []
        refused = 0
        for event in events:
            try:
                left_out += writer.write([event])
            except EventRefusedError as error:
                refused += 1
                logger.warning("A %s was not recorded: %s", type(event).__name__, error)
        # Counted at the end, because an error of the database on the way repeats the batch from its start.
        self._dropped += refused
        return left_out


class _Queue:
    """A thread-safe first-in first-out queue of events that holds at most `size` retrievals.

    `take` hands out a chunk, which counts as waiting until `taken_is_done`. Events are numbered from 1.
    """

    def __init__(self, size: int) -> None:
        # Reentrant: a signal handler or a finalizer may record while this very thread holds it.
        self.lock = threading.RLock()
        self.last = 0
        self.pushed_out = 0
        self._size = size
        self._done = 0
        self._events: dict[int, Event] = {}
        self._retrievals: deque[int] = deque()
        self._taken: list[int] = []
        self._changed = threading.Condition(self.lock)

    @property
    def empty(self) -> bool:
        return not self._events and not self._taken

    def put(self, event: Event) -> None:
        with self.lock:
            self.last += 1
            self._events[self.last] = event
            if isinstance(event, Retrieval):
                self._retrievals.append(self.last)
                if len(self._retrievals) > self._size:
                    del self._events[self._retrievals.popleft()]
                    self.pushed_out += 1

    def take(self, count: int) -> list[Event]:
        with self.lock:
            numbers = [number for number, _ in zip(self._events, range(count), strict=False)]
            events = [self._events.pop(number) for number in numbers]
            while self._retrievals and numbers and self._retrievals[0] <= numbers[-1]:
                self._retrievals.popleft()
            self._taken = numbers
            if not numbers:
                self._finish(self.last)
            return events

    def taken_is_done(self) -> None:
        with self.lock:
            if self._taken:
                self._finish(self._taken[-1])
            self._taken = []

    def abandon(self) -> int:
        """Forget everything that waits and return how many events that were."""
        with self.lock:
            count = len(self._events) + len(self._taken)
            self._events, self._taken = {}, []
            self._retrievals.clear()
            return count

    def wait(self, number: int, timeout: float) -> bool:
        """Wait until every event up to `number` is done; return whether it is within `timeout` seconds."""
        with self.lock:
            return self._changed.wait_for(lambda: self._done >= number, timeout)

    def _finish(self, number: int) -> None:
        self._done = max(self._done, number)
        self._changed.notify_all()


_captures: weakref.WeakSet[Capture] = weakref.WeakSet()
#: Captures whose writer is held still while the process forks.
_held: list[Capture] = []


def make_feedback(memory_id: str, polarity: str, retrieval_id: str | None) -> Feedback:
    """Return feedback as an adapter's caller gives it, checked; the polarity may be in any case.

    Raises:
        ConfigError: the polarity is neither POSITIVE nor NEGATIVE.
    """
    known: dict[str, Polarity] = {"POSITIVE": "POSITIVE", "NEGATIVE": "NEGATIVE"}
    if str(polarity).upper() not in known:
        raise ConfigError(f"{polarity!r} is not feedback.", 'Use "POSITIVE" or "NEGATIVE".')
    return Feedback(str(memory_id), known[str(polarity).upper()], str(retrieval_id or ""))


def never_raises(default: _Result) -> Callable[[Callable[_Params, _Result]], Callable[_Params, _Result]]:
    """Return a decorator that turns any failure of a recording function into a log line and `default`.

    For adapters: whatever goes wrong while an agent's call is recorded, the agent goes on.
    """

    def decorate(function: Callable[_Params, _Result]) -> Callable[_Params, _Result]:
        @functools.wraps(function)
        def guarded(*args: _Params.args, **kwargs: _Params.kwargs) -> _Result:
            try:
                return function(*args, **kwargs)
            except Exception:
                logger.warning("%s could not be recorded", function.__name__, exc_info=True)
                return default

        return guarded

    return decorate


def flush_all(timeout: float = 5.0) -> bool:
    """Wait until everything that any capture of this process has recorded so far is in the log.

    Args:
        timeout: seconds to wait for each capture.

    Returns:
        Whether everything was written in time.
    """
    return all([capture.flush(timeout) for capture in list(_captures)])


def _close_all() -> None:
    for capture in list(_captures):
        capture.close()


def _hold_writers() -> None:
    # No writer inside SQLite at the fork: its locks and its idea of who holds them would be copied to the child.
    _held.extend(capture for capture in list(_captures) if capture._write_lock.acquire(timeout=_FORK_SECONDS))


def _release_writers() -> None:
    while _held:
        _held.pop()._write_lock.release()


def _start_over_in_child() -> None:
    _held.clear()
    for capture in list(_captures):
        capture._dropped = 0
        capture._start_over()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_hold_writers, after_in_parent=_release_writers, after_in_child=_start_over_in_child)
