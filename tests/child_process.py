"""Second processes for tests: real ones, which can be killed, but do not spend seconds on importing torch."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# A server that has imported what all need forks each child; nothing of the test's own process is in it.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["sentence_transformers", "hins_adapter_mem0.memory", "hins_memory.training"])
_SECONDS = 240.0


class Child:
    """A process that runs `work(channel, *arguments)`; a module-level function, which says and hears by the channel."""

    def __init__(self, work: Callable[..., None], *arguments: Any) -> None:
        self._channel, theirs = _context.Pipe()
        self._process = _context.Process(target=work, args=(theirs, *arguments))
        self._process.start()
        theirs.close()

    def read(self) -> Any:
        """Return the next thing that it says; it is an error if it ends instead."""
        if not self._channel.poll(_SECONDS):
            raise AssertionError("the child says nothing")
        try:
            return self._channel.recv()
        except EOFError:
            self._process.join(_SECONDS)
            raise AssertionError(f"the child ended with {self._process.exitcode}") from None

    def tell(self, value: Any = None) -> None:
        self._channel.send(value)

    def wait(self, status: int = 0) -> None:
        """Wait for its end, which must have this exit status."""
        self._process.join(_SECONDS)
        assert self._process.exitcode == status

    def killed(self) -> None:
        """Wait until it has killed itself."""
        self.wait(-signal.SIGKILL)

    def kill(self) -> None:
        self._process.kill()
        self._process.join(_SECONDS)


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -c code arguments`` to its end, without the 7 seconds of processor time that importing torch takes.

    Functions that are registered with atexit are not called: a test of those starts a Python of its own.
    """
    with tempfile.TemporaryDirectory(prefix="hins-child-") as folder:
        process = _context.Process(target=_run, args=(folder, code, arguments, dict(os.environ)))
        process.start()
        process.join(_SECONDS)
        if process.is_alive():
            process.kill()
            raise AssertionError("the child does not end")
        out, errors = (Path(folder, name).read_text(encoding="utf-8") for name in ("out", "errors"))
        return subprocess.CompletedProcess([code, *arguments], process.exitcode or 0, out, errors)


def _run(folder: str, code: str, arguments: tuple[str, ...], environment: dict[str, str]) -> None:
    for number, name in ((1, "out"), (2, "errors")):
        os.dup2(os.open(f"{folder}/{name}", os.O_WRONLY | os.O_CREAT, 0o600), number)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["-c", *arguments]
    exec(compile(code, "<child>", "exec"), {"__name__": "__main__"})


@contextmanager
def children(*started: Child) -> Iterator[tuple[Child, ...]]:
    """End processes whatever happens."""
    try:
        yield started
    finally:
        for child in started:
            child.kill()
