"""Runs `hins_redact` hooks so that one that fails or hangs costs the event it had, and nothing else."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from hins_memory.plugins import manager as plugins
from hins_memory.types import Event

__all__ = ["Redaction"]

logger = logging.getLogger(__name__)

#: After so long in the hooks with one event, a hook is taken to hang.
_HANGS_SECONDS = 30.0
#: Hooks that may hang at once, a thread each; then no further event is given to any.
_MAX_HANGING = 4
_LOOK_SECONDS = 0.2


class Redaction:
    """The hooks of one capture. A thread cannot be ended: one that hangs is left to itself, and its event is lost.

    The event is not written without its redaction, and what waits goes on with a new thread. `failed` counts events
    whose hook raised something, `hung` those whose hook did not return in time.
    """

    def __init__(self) -> None:
        self.failed = 0
        self.hung = 0
        self._hanging: list[threading.Thread] = []

    def __call__(self, events: Sequence[Event], stopping: Callable[[], bool]) -> list[Event]:
        """Return what may be written of the events, in order; not before hooks return, unless it is `stopping`."""
        if not plugins.redacts():
            return list(events)
        kept: list[Event] = []
        while events:
            if not self._may_start(stopping):
                self.hung += len(events)
                break
            run = _Run(events)
            thread = threading.Thread(target=run.work, name="hins-redact", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                # No thread can start while the interpreter ends.
                run.work()
            done = run.wait(_HANGS_SECONDS)
            kept += run.kept
            self.failed += run.failed
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
        said = False
        while True:
            self._hanging = [thread for thread in self._hanging if thread.is_alive()]
            if len(self._hanging) < _MAX_HANGING:
                return True
            if stopping():
                return False
            if not said:
                logger.warning("%d hins_redact hooks hang; nothing is recorded until one returns", len(self._hanging))
                said = True
            self._hanging[0].join(_LOOK_SECONDS)


class _Run:
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
