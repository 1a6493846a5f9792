"""One thread that computes for one encoder, in batches that requests take turns in."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from hins_memory.errors import EncoderError
from hins_memory.types import Role

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Batcher", "Embedded", "QueueClosed", "QueueFull", "ServedEncoder"]

logger = logging.getLogger(__name__)

# Texts that a request gets into a batch at a time, before the next request has its turn.
_SHARE = 16
# Characters of a batch. Of a text the first ones count in full: a model reads only its beginning. The tokenizer reads
# the rest too, which counts a sixteenth.
_BATCH_CHARS = 32_768
_READ_CHARS = 2048
# Texts that the encoder pads to one length. It sorts a batch by length first.
_PADDED_TOGETHER = 16
_LONGEST_RETRY = 60


class ServedEncoder(Protocol):
    """What is served: an `Encoder`, or something that embeds as one does."""

    version: str
    space: str

    @property
    def dim(self) -> int:
        """The length of the vectors."""

    def encode(self, texts: Sequence[str], *, role: Role = "document", batch_size: int = 32) -> NDArray[np.float32]:
        """Return unit vectors of shape (len(texts), dim)."""

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens of each text are read."""


class QueueFull(Exception):
    """More texts wait than may; `seconds` is when to come again."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"come again in {seconds} seconds")
        self.seconds = seconds


class QueueClosed(Exception):
    """The encoder is being unloaded."""


@dataclass(frozen=True, slots=True)
class Embedded:
    """What became of a request: vectors of shape (n, dim), and how many tokens were read."""

    vectors: NDArray[np.float32]
    tokens: int


@dataclass(eq=False, slots=True)
class _Job:
    texts: Sequence[str]
    role: Role
    future: Future[Embedded]
    taken: int = 0
    parts: list[NDArray[np.float32]] = field(default_factory=list)
    tokens: int = 0


class Batcher:
    """Computes vectors for many requests with one thread and one encoder, which the thread loads first.

    Requests that wait take turns, so that one with thousands of texts does not hold up those with one. A request
    whose future is cancelled leaves the queue at once. Where the encoder cannot be loaded, all get the error.

    Args:
        name: of the encoder version.
        load: loads the encoder; nothing else should keep it busy.
        max_waiting: texts that may wait.
        max_batch: texts of a batch.
        on_batch: called with the number of texts of every batch.
    """

    def __init__(
        self,
        name: str,
        load: Callable[[], ServedEncoder],
        *,
        max_waiting: int,
        max_batch: int,
        on_batch: Callable[[int], object],
    ) -> None:
        self.name = name
        #: the encoder, as soon as it is loaded
        self.loaded: Future[ServedEncoder] = Future()
        self._load = load
        self._max_waiting, self._max_batch = max_waiting, max_batch
        self._on_batch = on_batch
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._waiting = 0
        self._closing = False
        # Texts a second, as a moving average.
        self._rate = 100.0
        self._thread = threading.Thread(target=self._run, name=f"hins-encode-{name}", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many texts wait."""
        return self._waiting

    def submit(self, texts: Sequence[str], role: Role) -> Future[Embedded]:
        """Put texts into the queue, at least one.

        Raises:
            QueueFull: too many wait.
            QueueClosed: the encoder is being unloaded.
        """
        job = _Job(texts, role, Future())
        with self._changed:
            if self._closing:
                raise QueueClosed
            # A request that is larger than the queue is let in when nothing else waits.
            if self._waiting and self._waiting + len(texts) > self._max_waiting:
                raise QueueFull(min(max(1, round(self._waiting / self._rate)), _LONGEST_RETRY))
            self._jobs.append(job)
            self._waiting += len(texts)
            self._changed.notify()
        job.future.add_done_callback(lambda future: self._leave(job) if future.cancelled() else None)
        return job.future

    def close(self) -> None:
        """Take no more texts, compute those that wait, and end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _leave(self, job: _Job) -> None:
        with self._changed:
            if job in self._jobs:
                self._jobs.remove(job)
                self._waiting -= len(job.texts) - job.taken

    def _run(self) -> None:
        try:
            encoder = self._load()
        except Exception as error:
            self._fail(error)
            return
        self.loaded.set_result(encoder)
        while batch := self._take():
            started = time.perf_counter()
            self._compute(encoder, batch)
            count = sum(len(texts) for _, texts in batch)
            self._on_batch(count)
            self._rate += 0.2 * (count / max(time.perf_counter() - started, 1e-6) - self._rate)

    def _fail(self, error: Exception) -> None:
        self.loaded.set_exception(error)
        with self._changed:
            self._closing = True
            jobs, self._waiting = list(self._jobs), 0
            self._jobs.clear()
        for job in jobs:
            with contextlib.suppress(InvalidStateError):
                job.future.set_exception(error)

    def _take(self) -> list[tuple[_Job, Sequence[str]]]:
        """Wait for texts, and return a batch of them; an empty one at the end."""
        batch: list[tuple[_Job, Sequence[str]]] = []
        texts = chars = 0
        with self._changed:
            while not (self._jobs or self._closing):
                self._changed.wait()
            while self._jobs and texts < self._max_batch and chars < _BATCH_CHARS:
                job = self._jobs.popleft()
                start = end = job.taken
                most = min(len(job.texts), start + _SHARE, start + self._max_batch - texts)
                while end < most and (end == start or chars < _BATCH_CHARS):
                    chars += _cost(job.texts[end])
                    end += 1
                job.taken = end
                texts += end - start
                self._waiting -= end - start
                batch.append((job, job.texts[start:end]))
                if end < len(job.texts):
                    self._jobs.append(job)
        return batch

    def _compute(self, encoder: ServedEncoder, batch: list[tuple[_Job, Sequence[str]]]) -> None:
        for role in dict.fromkeys(job.role for job, _ in batch):
            parts = [(job, texts) for job, texts in batch if job.role == role and not job.future.done()]
            try:
                _embed(encoder, role, parts)
            except Exception:
                # One text that cannot be embedded must not fail the requests of others.
                for part in parts:
                    self._embed_alone(encoder, role, part)

    def _embed_alone(self, encoder: ServedEncoder, role: Role, part: tuple[_Job, Sequence[str]]) -> None:
        try:
            _embed(encoder, role, [part])
        except Exception as error:
            logger.exception("%s could not embed %d texts", self.name, len(part[1]))
            with contextlib.suppress(InvalidStateError):
                part[0].future.set_exception(error)
            self._leave(part[0])


def _embed(encoder: ServedEncoder, role: Role, parts: list[tuple[_Job, Sequence[str]]]) -> None:
    import numpy as np

    texts = [text for _, some in parts for text in some]
    if not texts:
        return
    vectors = encoder.encode(texts, role=role, batch_size=_PADDED_TOGETHER)
    tokens = encoder.count_tokens(texts)
    if not np.isfinite(vectors).all():
        raise EncoderError(f"{encoder.version} gave a vector that is not finite.", "Restore the version.")
    start = 0
    for job, some in parts:
        end = start + len(some)
        job.parts.append(vectors[start:end])
        job.tokens += sum(tokens[start:end])
        start = end
        if sum(map(len, job.parts)) == len(job.texts):
            with contextlib.suppress(InvalidStateError):
                job.future.set_result(Embedded(np.concatenate(job.parts), job.tokens))


def _cost(text: str) -> int:
    return 16 + min(len(text), _READ_CHARS) + len(text) // 16
