"""Runs `hins_redact` hooks; a hook that fails or hangs loses the event that it was given, and no other event."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from hins_memory.plugins import manager as plugins
from hins_memory.types import Event

__all__ = ["Redaction"]

logger = logging.getLogger(__name__)

#: A hook that has not returned one event after this time is taken to hang.
_HANGS_SECONDS = 30.0
#: At most this many hooks may hang at once, a thread each; then no hook gets another event.
_MAX_HANGING = 4
_POLL_SECONDS = 0.2


class Redaction:
    """The hooks of one capture. A thread that hangs cannot be ended: it is left running, and its event is lost.

    An event is never written without its redaction; those after it are redacted in a new thread. `failed` counts events
    whose hook raised something, `hung` those whose hook did not return in time.
    """

    def __init__(self) -> None:
        self.failed = 0
        self.hung = 0
        self._hanging: list[threading.Thread] = []

    def __call__(self, events: Sequence[Event], stopping: Callable[[], bool]) -> list[Event]:
        """Return the events that may be written, redacted, in order; waits for hooks that hang until `stopping()`."""
        if not plugins.redacts():
            return list(events)
        kept: list[Event] = []
        while events:
            if not self._may_start(stopping):
                self.hung += len(events)
                break
            redaction = _RedactionPass(events)
            thread = threading.Thread(target=redaction.work, name="hins-redact", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                # No thread can start while the interpreter ends.
                redaction.work()
            done = redaction.wait(_HANGS_SECONDS)
            kept += redaction.kept
            self.failed += redaction.failed
            if done == len(events):
                break
            self.hung += 1
            self._hanging.append(thread)
            logger.warning(
                "A hins_redact hook has not returned for %g seconds; its event is lost, the next ones go on",
                _HANGS_SECONDS,
            )
            events = events[done + 1 :]
        return kept

    def _may_start(self, stopping: Callable[[], bool]) -> bool:
        warned = False
        while True:
            self._hanging = [thread for thread in self._hanging if thread.is_alive()]
            if len(self._hanging) < _MAX_HANGING:
                return True
            if stopping():
                return False
            if not warned:
                logger.warning("%d hins_redact hooks hang; nothing is recorded until one returns", len(self._hanging))
                warned = True
            self._hanging[0].join(_POLL_SECONDS)


class _RedactionPass:
    """One pass over events, in a thread that may be given up."""

    def __init__(self, events: Sequence[Event]) -> None:
        self.kept: list[Event] = []
        self.failed = 0
        self._events = events
        self._done = 0
        self._given_up = False
        self._changed = threading.Condition()

    def work(self) -> None:
        for event in self._events:
            redacted: Event | None = None
            failed = False
            try:
                redacted = plugins.redact(event)
            except plugins.RedactionError as error:
                failed = True
                logger.error("%s; the event is left out", error, exc_info=error.__cause__)
            with self._changed:
                if self._given_up:
                    return
                self.failed += failed
                if redacted is not None:
                    self.kept.append(redacted)
                self._done += 1
                self._changed.notify_all()

    def wait(self, seconds: float) -> int:
        """Wait until all is done, or one event takes longer than `seconds`; return how many events are done."""
        with self._changed:
            while self._done < len(self._events):
                before = self._done
                if not self._changed.wait_for(lambda before=before: self._done > before, seconds):  # type: ignore[misc]
                    self._given_up = True
                    break
            return self._done
