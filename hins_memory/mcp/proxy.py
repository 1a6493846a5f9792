"""Runs a server as a child process and passes lines between it and the agent, which started this process."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from hins_memory.errors import ConfigError
from hins_memory.mcp.traffic import Traffic

__all__ = ["run_proxy"]

_STDIN, _STDOUT = 0, 1
# As shells have it: the status of a process that a signal ended.
_BY_SIGNAL = 128


def run_proxy(command: Sequence[str], traffic: Traffic) -> int:
    """Run a server until it ends, with this process's stdin and stdout as its own; return its exit status.

    When the agent closes stdin, so is the server's. When the server closes stdout, or ends, stdin and stdout are closed
    towards the agent. SIGTERM, SIGINT and SIGHUP go on to the server. To be called in the main thread.

    Args:
        command: the server's program and its arguments.
        traffic: looks at each line.

    Returns:
        The server's status; 128 and the signal's number if one ended it.

    Raises:
        ConfigError: the command cannot be started.
    """
    try:
        server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{command[0]} cannot be started: {error}.", "Give the server's command after --.") from error
    to_agent = _Writer(_STDOUT)
    with _signals_for(server):
        # A daemon: it may be waiting for the agent when the server has ended.
        threading.Thread(target=_pass_to_server, args=(server, traffic, to_agent), daemon=True).start()
        _pass_to_agent(server, traffic, to_agent)
        _close_towards_agent()
        status = server.wait()
    return status if status >= 0 else _BY_SIGNAL - status


class _Writer:
    """Writes whole lines to a descriptor, from any thread."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def write(self, line: bytes) -> bool:
        """Write a line; return whether anyone reads what is written."""
        with self._lock:
            try:
                left = memoryview(line)
                while left:
                    left = left[os.write(self._descriptor, left) :]
            except OSError:
                return False
        return True


def _pass_to_server(server: subprocess.Popen[bytes], traffic: Traffic, to_agent: _Writer) -> None:
    assert server.stdin is not None
    with open(_STDIN, "rb", closefd=False) as agent:
        to_server = _Writer(server.stdin.fileno())
        for line in agent:
            forward, reply = traffic.from_agent(line)
            if reply:
                to_agent.write(reply)
            if forward and not to_server.write(forward):
                # The server reads no more. Without a proxy the agent's next write would fail, so it does.
                _point_to_nothing(_STDIN, os.O_RDONLY)
                break
    with contextlib.suppress(OSError):
        server.stdin.close()


def _pass_to_agent(server: subprocess.Popen[bytes], traffic: Traffic, to_agent: _Writer) -> None:
    assert server.stdout is not None
    for line in server.stdout:
        if not to_agent.write(traffic.from_server(line)):
            break
    # If the agent reads no more, the server's next write fails, as it would without a proxy.
    server.stdout.close()


def _close_towards_agent() -> None:
    """Close stdin and stdout towards the agent, before anything that takes time is done."""
    _point_to_nothing(_STDIN, os.O_RDONLY)
    _point_to_nothing(_STDOUT, os.O_WRONLY)


def _point_to_nothing(descriptor: int, flags: int) -> None:
    nothing = os.open(os.devnull, flags)
    os.dup2(nothing, descriptor)
    os.close(nothing)


@contextlib.contextmanager
def _signals_for(server: subprocess.Popen[bytes]) -> Iterator[None]:
    """Send the server what this process is told to end with."""

    def send(number: int, _: Any) -> None:
        # From a terminal, the server has it already.
        if number != signal.SIGINT or not os.isatty(_STDIN):
            server.send_signal(number)

    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.signal(number, send) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
