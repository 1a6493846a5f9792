"""Capture: takes an agent's events off its hot path and writes them to the interaction log in a thread of its own."""

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
# Events collect for so long before they are committed; one second is promised.
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
    `Capture.dropped`; among them are `pushed_out` (turns, memories and outcomes that found no room, nor any retrieval
    to make some), `redaction_failed` and `redaction_hung`. `restarts` counts failures of the writer that were not
    foreseen, after which it went on. `failing` says whether the database cannot be written at present.
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
    keep up. Turns, memories and outcomes are dropped only when the bytes do not suffice without any retrieval, and
    deletions never. While the database cannot be written (full disk, lock), events are kept and tried again. An event
    that cannot be a row, or whose redaction fails or hangs, costs itself alone. The database is opened with the
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
        self._start_over()
        if settings.capture:
            _captures.add(self)
            at_worker_end(_close_all)
            # Here and not at the first event, because starting a thread takes milliseconds; it only waits until then.
            self._start_thread()

    def _start_over(self) -> None:
        """Begin with an empty queue and no thread: at first, and in a forked child."""
        self._queue = EventQueue(self._settings.queue_bytes)
        self._redaction = Redaction()
        self._wake = threading.Event()
        self._hurry = threading.Event()
        self._stopping = threading.Event()
        self._drain_lock = threading.Lock()
        self._chunk: list[Event] | None = None
        self._thread: threading.Thread | None = None
        self._engine: sa.Engine | None = None
        self._waiting: list[tuple[float, Answer | Feedback]] = []
        self._failing = False
        self._restarts = 0
        self._id = new_id()
        self._noted = (0, 0)

    def __enter__(self) -> Capture:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def dropped(self) -> int:
        """How many recorded events never reach the log, but for those redaction leaves out: 0 while all is well.

        What a full queue pushed out, outcomes whose retrieval is not in the log, events that the database can never
        hold or whose redaction failed or hung, and what could not be written before `close` gave up.
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
                # Nothing that can be foreseen, but a writer that ends would let the queue fill without a word.
                self._restarted(repr(error))
                self._stopping.wait(_RESTART_SECONDS)
                self._wake.set()
        if self._engine is not None:
            self._engine.dispose()

    def _restarted(self, why: str) -> None:
        self._restarts += 1
        logger.warning("The writer of the interaction log failed and was restarted: %s", why)

    def _run_once(self) -> None:
        # Without events there is nothing to do, and no timer runs; waiting outcomes are looked at now and then.
        self._wake.wait(timeout=_OUTCOME_SECONDS / 5 if self._waiting else None)
        if self._wake.is_set():
            # Events that come now, all at once, share a transaction. flush() and close() hurry.
            self._hurry.wait(timeout=_FLUSH_SECONDS)
        self._wake.clear()
        self._hurry.clear()
        self._drain(patient=True)

    def _drain(self, patient: bool) -> None:
        """Write until the queue is empty; give up while the database fails if not `patient`, or at `close`."""
        with self._drain_lock:
            while self._chunk or self._take():
                try:
                    if not self._store(self._chunk or [], patient):
                        return
                except BaseException:
                    self._dropped += len(self._chunk or [])
                    logger.exception("Events could not be recorded, by an error that was not foreseen")
                self._chunk = None
                self._queue.taken_is_done()
            if self._waiting:
                self._store([], patient=False)
            self._note_loss()

    def _note_loss(self) -> None:
        """Keep in the log what was lost, where other processes find it."""
        stats = self.stats()
        seen = (stats.dropped, stats.restarts)
        if seen == self._noted or self._engine is None:
            return
        redaction = stats.redaction_failed + stats.redaction_hung
        process = f"{os.getpid()} on {socket.gethostname()}"
        loss = CaptureLoss(self._id, process, now(), stats.dropped, stats.pushed_out, redaction, stats.restarts)
        try:
            note_loss(self._engine, loss)
            self._noted = seen
        except LogError as error:
            logger.warning("What was lost could not be noted: %s", error)

    def _take(self) -> bool:
        """Take the next chunk from the queue and redact it, once; False when the queue is empty."""
        events = self._queue.take(_CHUNK, _CHUNK_BYTES)
        if not events:
            return False
        self._chunk = self._redaction(events, self._stopping.is_set)
        return True

    def _store(self, events: list[Event], patient: bool) -> bool:
        """Write events, trying again while the database fails; return whether they are written."""
        delay = _FIRST_RETRY_SECONDS
        while True:
            try:
                self._write(events)
            except LogError as error:
                # Opened anew: the file may have been moved, or the server be another one.
                self._engine = None
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
        except BaseException as error:
            if _is_not_the_events(error):
                raise
            left_out = self._write_one_by_one(writer, batch)
        time_now = time.monotonic()
        since = {id(outcome): first for first, outcome in self._waiting}
        waiting = [(since.get(id(outcome), time_now), outcome) for outcome in left_out]
        self._waiting = [(first, outcome) for first, outcome in waiting if time_now - first < _OUTCOME_SECONDS]
        self._dropped += len(waiting) - len(self._waiting)

    def _write_one_by_one(self, writer: LogWriter, events: list[Event]) -> list[Answer | Feedback]:
        """Write a batch in which an event is refused, or raises: leave out that one and keep the rest."""
        left_out: list[Answer | Feedback] = []
        refused = 0
        for event in events:
            try:
                left_out += writer.write([event])
            except BaseException as error:
                if _is_not_the_events(error):
                    raise
                refused += 1
                logger.warning("A %s was not recorded: %s", type(event).__name__, error)
        # Counted at the end, because an error of the database on the way repeats the batch from its start.
        self._dropped += refused
        return left_out


def _is_not_the_events(error: BaseException) -> bool:
    """Whether an error of writing is the database's or the user's; any other comes from an event."""
    if isinstance(error, EventRefusedError):
        return False
    return isinstance(error, (LogError, KeyboardInterrupt))


_captures: weakref.WeakSet[Capture] = weakref.WeakSet()


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


def _start_over_in_child() -> None:
    if _captures:
        at_worker_end(_close_all)
    for capture in list(_captures):
        capture._dropped = 0
        capture._start_over()


at_process_end(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_over_in_child)
