"""Capture: queues an agent's events without blocking it, and writes them to the log in a thread of its own."""

from __future__ import annotations

import functools
import logging
import os
import socket
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import ParamSpec, TypeVar

import sqlalchemy as sa

from hins_memory.config import Settings
from hins_memory.database.engine import open_database
from hins_memory.errors import ConfigError, LogError
from hins_memory.log.losses import CaptureLoss, note_loss
from hins_memory.log.process_end import at_process_end, at_worker_end
from hins_memory.log.queue import EventQueue
from hins_memory.log.redaction import Redaction
from hins_memory.log.writer import EventRefusedError, LogWriter
from hins_memory.types import Answer, Event, Feedback, Polarity, new_id, now

__all__ = ["Capture", "CaptureStats", "flush_all", "make_feedback", "never_raises"]

logger = logging.getLogger(__name__)

_Params = ParamSpec("_Params")
_Result = TypeVar("_Result")

#: Events in one transaction: large enough to be fast, small enough that no other process waits long.
_CHUNK = 500
_CHUNK_BYTES = 8 << 20
# How long events are collected before they are committed; at most one second is promised.
_FLUSH_SECONDS = 0.2
_FIRST_RETRY_SECONDS = 0.1
_LAST_RETRY_SECONDS = 5.0
#: How long an outcome waits for a retrieval that another process has yet to write.
_OUTCOME_SECONDS = 5.0
_CLOSE_SECONDS = 5.0
_RESTART_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class CaptureStats:
    """How a capture is doing.

    `recorded` counts all events so far, `waiting` and `waiting_bytes` those in the queue. `dropped` is as
    `Capture.dropped`; among them are `pushed_out` (turns, memories and outcomes dropped from a full queue that held no
    retrieval to drop instead), `redaction_failed` and `redaction_hung`. `restarts` counts unexpected failures of the
    writer, after which it was restarted. `failing` says whether the database cannot be written at present.
    """

    recorded: int
    waiting: int
    waiting_bytes: int
    dropped: int
    pushed_out: int
    redaction_failed: int
    redaction_hung: int
    restarts: int
    failing: bool


class Capture:
    """Records an agent's events in a project's log without slowing the agent down or ever raising into it.

    `record` only appends to a queue; a daemon thread passes every event through the `hins_redact` hooks and commits
    it, so that everything older than one second is on disk. The queue holds at most 10,000
    retrievals and `Settings.queue_bytes` bytes: the oldest retrievals are dropped and counted when the writer cannot
    keep up. Turns, memories and outcomes are dropped only when the queue is too large without any retrieval, and
    deletions never. While the database cannot be written (full disk, lock), events are kept and tried again. An event
    that the database cannot hold, or whose redaction fails or hangs, is dropped alone. The database is opened with the
    first event.

    May be shared by threads. A forked child starts with an empty queue and a writer of its own. What is still
    waiting is written at the end of the interpreter, of a child of multiprocessing, and of a Celery worker; `close`
    does the same earlier, and records nothing afterwards.

    Example:
        >>> with Capture(Settings()) as capture:  # doctest: +SKIP
        ...     capture.record(Turn(Scope(user="ann"), "monday", "Ann", "I moved to Oslo."))
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._closed = not settings.capture
        self._dropped = 0
        self._reset()
        if settings.capture:
            _captures.add(self)
            at_worker_end(_close_all)
            # Started here and not by the first event, because it takes milliseconds; until then the thread only waits.
            self._start_thread()

    def _reset(self) -> None:
        """Begin with an empty queue and no thread: at first, and in a forked child."""
        self._queue = EventQueue(self._settings.queue_bytes)
        self._redaction = Redaction()
        self._wake = threading.Event()
        self._flush_requested = threading.Event()
        self._stopping = threading.Event()
        self._drain_lock = threading.Lock()
        self._chunk: list[Event] | None = None
        self._thread: threading.Thread | None = None
        self._engine: sa.Engine | None = None
        self._waiting: list[tuple[float, Answer | Feedback]] = []
        self._failing = False
        self._restarts = 0
        self._id = new_id()
        self._noted_counts = (0, 0)

    def __enter__(self) -> Capture:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def dropped(self) -> int:
        """How many recorded events were lost; events that redaction leaves out do not count.

        Events that a full queue dropped, outcomes whose retrieval is not in the log, events that the database can never
        hold or whose redaction failed or hung, and events that could not be written before `close` gave up.
        """
        return self._dropped + self._queue.pushed_out + self._redaction.failed + self._redaction.hung

    def stats(self) -> CaptureStats:
        """Return how the capture is doing; of this process, since its start."""
        return CaptureStats(
            recorded=self._queue.last,
            waiting=len(self._queue),
            waiting_bytes=self._queue.bytes,
            dropped=self.dropped,
            pushed_out=self._queue.pushed_out_others,
            redaction_failed=self._redaction.failed,
            redaction_hung=self._redaction.hung,
            restarts=self._restarts,
            failing=self._failing,
        )

    def record(self, event: Event) -> None:
        """Queue an event; takes microseconds, never blocks on the disk and never raises."""
        if self._closed:
            return
        try:
            self._queue.put(event)
            if self._thread is None or not self._thread.is_alive():
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
        self._flush_requested.set()
        self._wake.set()
        if not self._start_thread():
            # No thread can start while the interpreter ends: write from here, trying once.
            self._drain(retry=False)
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
        self._flush_requested.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout=1.0)
        lost = self._queue.abandon() + len(self._waiting)
        if lost:
            self._dropped += lost
            logger.warning("%d events could not be written to the interaction log and are lost", lost)
            self._note_loss()

    def _start_thread(self) -> bool:
        with self._queue.lock:
            if self._thread is None or not self._thread.is_alive():
                if self._thread is not None and not self._stopping.is_set():
                    self._restarted("its thread had ended")
                thread = threading.Thread(target=self._run, name="hins-capture", daemon=True)
                try:
                    thread.start()
                except RuntimeError:
                    return False
                self._thread = thread
        return True

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._run_once()
            except BaseException as error:
                # Not expected; but if the writer ended, the queue would fill up without any message.
                self._restarted(repr(error))
                self._stopping.wait(_RESTART_SECONDS)
                self._wake.set()
        if self._engine is not None:
            self._engine.dispose()

    def _restarted(self, why: str) -> None:
        self._restarts += 1
        logger.warning("The writer of the interaction log failed and was restarted: %s", why)

    def _run_once(self) -> None:
        # Without events no timer runs; while outcomes wait for their retrievals, they are tried again every second.
        self._wake.wait(timeout=_OUTCOME_SECONDS / 5 if self._waiting else None)
        if self._wake.is_set():
            # Events that come meanwhile share a transaction. flush() and close() end the wait.
            self._flush_requested.wait(timeout=_FLUSH_SECONDS)
        self._wake.clear()
        self._flush_requested.clear()
        self._drain(retry=True)

    def _drain(self, retry: bool) -> None:
        """Write until the queue is empty; give up while the database fails unless `retry`, and at `close`."""
        with self._drain_lock:
            while self._chunk or self._take_chunk():
                try:
                    if not self._write_with_retries(self._chunk or [], retry):
                        return
                except BaseException:
                    self._dropped += len(self._chunk or [])
                    logger.exception("Events could not be recorded, because of an unexpected error")
                self._chunk = None
                self._queue.finish_taken()
            if self._waiting:
                self._write_with_retries([], retry=False)
            self._note_loss()

    def _note_loss(self) -> None:
        """Write the counts of lost events into the log, where other processes find them."""
        stats = self.stats()
        seen = (stats.dropped, stats.restarts)
        if seen == self._noted_counts or self._engine is None:
            return
        redaction = stats.redaction_failed + stats.redaction_hung
        process = f"{os.getpid()} on {socket.gethostname()}"
        loss = CaptureLoss(self._id, process, now(), stats.dropped, stats.pushed_out, redaction, stats.restarts)
        try:
            note_loss(self._engine, loss)
            self._noted_counts = seen
        except LogError as error:
            logger.warning("What was lost could not be noted: %s", error)

    def _take_chunk(self) -> bool:
        """Take the next chunk from the queue and redact it, once; False when the queue is empty."""
        events = self._queue.take(_CHUNK, _CHUNK_BYTES)
        if not events:
            return False
        self._chunk = self._redaction(events, self._stopping.is_set)
        return True

    def _write_with_retries(self, events: list[Event], retry: bool) -> bool:
        """Write events, trying again while the database fails; return whether they are written."""
        delay = _FIRST_RETRY_SECONDS
        while True:
            try:
                self._write(events)
            except LogError as error:
                # The database is opened again next time: its file may have been moved, or its server replaced.
                self._engine = None
                if not self._failing:
                    logger.warning("The interaction log cannot be written; events are kept and tried again. %s", error)
                self._failing = True
                if self._stopping.is_set() or not retry:
                    return False
                self._flush_requested.wait(timeout=delay)
                self._flush_requested.clear()
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
        except BaseException as error:
            if _is_database_or_interrupt(error):
                raise
            left_out = self._write_one_by_one(writer, batch)
        time_now = time.monotonic()
        since = {id(outcome): first for first, outcome in self._waiting}
        waiting = [(since.get(id(outcome), time_now), outcome) for outcome in left_out]
        self._waiting = [(first, outcome) for first, outcome in waiting if time_now - first < _OUTCOME_SECONDS]
        self._dropped += len(waiting) - len(self._waiting)

    def _write_one_by_one(self, writer: LogWriter, events: list[Event]) -> list[Answer | Feedback]:
        """Write a batch in which an event is refused or raises an error: leave that event out and keep the rest."""
        left_out: list[Answer | Feedback] = []
        refused = 0
        for event in events:
            try:
                left_out += writer.write([event])
            except BaseException as error:
                if _is_database_or_interrupt(error):
                    raise
                refused += 1
                logger.warning("A %s was not recorded: %s", type(event).__name__, error)
        # Counted at the end: after an error of the database the batch is repeated from its start.
        self._dropped += refused
        return left_out


def _is_database_or_interrupt(error: BaseException) -> bool:
    """Return whether writing failed because of the database or an interrupt, and not because of an event."""
    if isinstance(error, EventRefusedError):
        return False
    return isinstance(error, (LogError, KeyboardInterrupt))


_captures: weakref.WeakSet[Capture] = weakref.WeakSet()


def make_feedback(memory_id: str, polarity: str, retrieval_id: str | None) -> Feedback:
    """Return feedback from what an adapter's caller gave, checked; the polarity may be in upper or lower case.

    Raises:
        ConfigError: the polarity is neither POSITIVE nor NEGATIVE.
    """
    known: dict[str, Polarity] = {"POSITIVE": "POSITIVE", "NEGATIVE": "NEGATIVE"}
    if str(polarity).upper() not in known:
        raise ConfigError(f"{polarity!r} is not feedback.", 'Use "POSITIVE" or "NEGATIVE".')
    return Feedback(str(memory_id), known[str(polarity).upper()], str(retrieval_id or ""))


def never_raises(default: _Result) -> Callable[[Callable[_Params, _Result]], Callable[_Params, _Result]]:
    """Return a decorator that turns any failure of a recording function into a log line and `default`.

    For adapters: an error while an agent's call is recorded must not stop the agent.
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


def _reset_after_fork() -> None:
    if _captures:
        at_worker_end(_close_all)
    for capture in list(_captures):
        capture._dropped = 0
        capture._reset()


at_process_end(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)
