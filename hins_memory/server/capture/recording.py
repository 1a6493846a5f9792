"""Events from HTTP into the log's queue: each once by its id, all of a request or none."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from hins_memory.database.engine import open_database
from hins_memory.errors import HinsError
from hins_memory.log.capture import Capture
from hins_memory.log.known import KnownEvents
from hins_memory.log.queue import MAX_RETRIEVALS
from hins_memory.log.rows import EventRefusedError
from hins_memory.plugins.manager import redacts
from hins_memory.types import Answer, Deletion, Event, Feedback, Memory, Retrieval, Turn

if TYPE_CHECKING:
    from hins_memory.config import Settings
    from hins_memory.log.capture import CaptureStats

__all__ = ["ConflictError", "Outcome", "QueueFullError", "Recording", "UnknownRetrievalError"]

# Events that may not be on disk yet are compared here; no more than this many are in the queue, mostly.
_RECENT = 2 * MAX_RETRIEVALS
# A request is turned away before the queue would have to drop something for it.
_FULL = 0.9


class ConflictError(HinsError):
    """An event has the id of another one with other content."""


class UnknownRetrievalError(HinsError):
    """An outcome names a search that is not in the log."""


class QueueFullError(HinsError):
    """The log's writer is behind, and what was sent would push other events out of the queue."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How many of a request's events were put into the queue, and how many the log had already."""

    recorded: int
    known: int


class Recording:
    """Records events that other processes send. Safe with several threads.

    Two processes that serve one log may both take an event within the second in which neither has written it; the log
    keeps the first.

    Args:
        settings: the project; with its capture turned off nothing is recorded.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._capture = Capture(settings)
        self._recent: OrderedDict[tuple[str, ...], str] = OrderedDict()
        self._dropped = 0
        self._lock = threading.Lock()

    @property
    def on(self) -> bool:
        """Whether the project's settings let anything be recorded."""
        return self._settings.capture

    def stats(self) -> CaptureStats:
        """Return how the queue and its writer are doing."""
        return self._capture.stats()

    def close(self) -> None:
        """Write what waits, and record nothing more."""
        self._capture.close()

    def record(self, events: Sequence[tuple[Event, bool]]) -> Outcome:
        """Put a request's events into the queue, or none of them.

        Args:
            events: each with whether the client gave its time; a time that was filled in is not compared.

        Raises:
            ConflictError: one has the id of another event.
            UnknownRetrievalError: an outcome names a search that is not in the log.
            QueueFullError: the writer is behind.
            LogError: the log cannot be read, or can never hold one of them.
        """
        if not self.on:
            return Outcome(0, 0)
        with self._lock:
            self._check_room(len(events))
            self._check_retrievals([event for event, _ in events if isinstance(event, (Answer, Feedback))])
            fresh: list[tuple[Event, tuple[str, ...], str]] = []
            staged: dict[tuple[str, ...], str] = {}
            for event, timed in events:
                key, digest = _key(event), _digest(event, timed)
                if self._is_new(event, timed, staged.get(key) or self._recent.get(key), digest):
                    fresh.append((event, key, digest))
                    staged[key] = digest
            for event, key, digest in fresh:
                self._capture.record(event)
                self._remember(key, digest)
            return Outcome(len(fresh), len(events) - len(fresh))

    def _check_room(self, count: int) -> None:
        stats = self._capture.stats()
        if stats.dropped != self._dropped:
            # What is known here only may be what was lost.
            self._dropped = stats.dropped
            self._recent.clear()
        full = stats.waiting + count > _FULL * MAX_RETRIEVALS
        if full or stats.waiting_bytes > _FULL * self._settings.queue_bytes:
            why = "the log cannot be written at present" if stats.failing else "its writer is behind"
            raise QueueFullError(
                f"{stats.waiting} events wait for the log, because {why}.", "Nothing was recorded; send it again later."
            )

    def _check_retrievals(self, outcomes: Sequence[Answer | Feedback]) -> None:
        missing = {one.retrieval_id for one in outcomes if ("retrieval", one.retrieval_id) not in self._recent}
        if missing:
            missing -= KnownEvents(open_database(self._settings.database_url)).retrievals(missing)
        if missing:
            raise UnknownRetrievalError(
                f"The log has no search {sorted(missing)[0]!r}, so that it is not known whose outcome this is.",
                "Send the search first. If another process has just recorded it, try again in a second.",
            )

    def _is_new(self, event: Event, timed: bool, recent: str | None, digest: str) -> bool:
        if isinstance(event, (Memory, Deletion)):
            # A change of what there is: the latest counts, however often it is sent.
            return True
        if recent == digest:
            return False
        if recent is None:
            try:
                log = KnownEvents(open_database(self._settings.database_url))
                found = log.find(event, timed=timed, texts=not redacts())
            except EventRefusedError as error:
                raise ConflictError(error.problem, error.hint) from error
        else:
            # Of one search there may be several answers, and opinions that change.
            found = "other" if isinstance(event, (Turn, Retrieval)) else "new"
        if found == "other":
            raise _conflict(event)
        return found == "new"

    def _remember(self, key: tuple[str, ...], digest: str) -> None:
        self._recent[key] = digest
        self._recent.move_to_end(key)
        while len(self._recent) > _RECENT:
            self._recent.popitem(last=False)


def _conflict(event: Event) -> ConflictError:
    kind, name = type(event).__name__.lower(), getattr(event, "id", "")
    return ConflictError(
        f"Another {kind} has the id {name!r}.",
        f"Nothing was recorded. A {kind} is never changed: use a new id, or send what was sent before.",
    )


def _key(event: Event) -> tuple[str, ...]:
    """Return what names an event: equal keys are the same event, or a conflict."""
    if isinstance(event, (Turn, Retrieval)):
        return type(event).__name__.lower(), event.id
    if isinstance(event, Answer):
        return "answer", event.retrieval_id, _hash(event.text)
    if isinstance(event, Feedback):
        return "feedback", event.retrieval_id, event.memory_id
    return (type(event).__name__.lower(),)


def _digest(event: Event, timed: bool) -> str:
    values = asdict(event)
    if not timed:
        del values["time"]
    return _hash(json.dumps(values, sort_keys=True))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
