"""Second processes for tests: real ones, which can be killed, but do not spend seconds on importing torch."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["SECONDS", "Child", "children", "context"]

#: A server that has imported what all need forks each child; nothing of the test's own process is in it.
context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["sentence_transformers", "hins_memory.testing", "hins_memory.swapping"])
#: how long a child may take to say something, or to end
SECONDS = 240.0


class Child:
    """A process that runs `work(channel, *arguments)`; a module-level function, which says and hears by the channel.

    It has the environment of now, not of when the server was started.
    """

    def __init__(self, work: Callable[..., None], *arguments: Any) -> None:
        self._channel, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(dict(os.environ), work, theirs, *arguments))
        self._process.start()
        theirs.close()

    def read(self) -> Any:
        """Return the next thing that it says; it is an error if it ends instead."""
        if not self._channel.poll(SECONDS):
            raise AssertionError("the child says nothing")
        try:
            return self._channel.recv()
        except EOFError:
            self._process.join(SECONDS)
            raise AssertionError(f"the child ended with {self._process.exitcode}") from None

    def tell(self, value: Any = None) -> None:
        """Send it a value."""
        self._channel.send(value)

    def wait(self, status: int = 0) -> None:
        """Wait for its end, which must have this exit status."""
        self._process.join(SECONDS)
        assert self._process.exitcode == status

    def killed(self) -> None:
        """Wait until it has killed itself."""
        self.wait(-signal.SIGKILL)

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.join(SECONDS)


def _work(environment: dict[str, str], work: Callable[..., None], channel: Any, *arguments: Any) -> None:
    # What the server imported stays: no garbage collection looks through it again.
    gc.freeze()
    os.environ.clear()
    os.environ.update(environment)
    work(channel, *arguments)


@contextmanager
def children(*started: Child) -> Iterator[tuple[Child, ...]]:
    """End processes whatever happens."""
    try:
        yield started
    finally:
        for child in started:
            child.kill()
