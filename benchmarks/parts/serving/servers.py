"""Server processes: started, waited for, watched, and ended."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from hins_memory.config import Settings
from hins_memory.errors import HinsError

__all__ = ["Server", "free_port", "hins_command", "infinity_command", "started", "unbatched_command"]

_START_SECONDS = 180


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: its port, and the model's id there."""

    name: str
    port: int
    model: str
    process: psutil.Process

    def cpu_seconds(self) -> float:
        """Return the processor time of the process and of those that it started."""
        found = 0.0
        for one in (self.process, *self.process.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                times = one.cpu_times()
                found += times.user + times.system
        return found

    def rss_mib(self) -> float:
        """Return the memory of the process, in MiB."""
        return float(self.process.memory_info().rss) / 2**20


def hins_command(settings: Settings, engine: str, port: int) -> list[str]:
    """Return the command of `hins serve` for a project."""
    options = ["--home", str(settings.home), "--project", settings.project]
    return [sys.executable, "-m", "hins_memory", *options, "serve", "--port", str(port), "--engine", engine]


def unbatched_command(model: Path, port: int) -> list[str]:
    """Return the command of the server without batches."""
    return [sys.executable, str(Path(__file__).with_name("unbatched.py")), str(model), str(port)]


def infinity_command(program: Path, model: Path, port: int) -> list[str]:
    """Return the command of infinity-emb, which is in an environment of its own."""
    options = ["--model-id", str(model), "--served-model-name", "model", "--device", "cpu", "--engine", "torch"]
    # Its other form of attention needs older versions of transformers.
    options.append("--no-bettertransformer")
    return [str(program), "v2", *options, "--port", str(port), "--host", "127.0.0.1", "--url-prefix", "/v1"]


def free_port() -> int:
    """Return a port that nothing listens on now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextlib.contextmanager
def started(name: str, command: Sequence[str], port: int, model: str) -> Iterator[Server]:
    """Run a server inside the block, from when it answers.

    Raises:
        HinsError: it did not start; says what it wrote.
    """
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0", "DO_NOT_TRACK": "1"}
    with tempfile.TemporaryFile() as written:
        process = subprocess.Popen(command, stdout=written, stderr=subprocess.STDOUT, env=environment)
        try:
            deadline = time.monotonic() + _START_SECONDS
            while not _answers(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    written.seek(0)
                    raise HinsError(f"{name} did not start: {written.read()[-2000:].decode(errors='replace')}")
                time.sleep(0.2)
            yield Server(name, port, model, psutil.Process(process.pid))
        finally:
            process.terminate()
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
