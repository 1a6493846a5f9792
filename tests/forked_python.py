"""A Python for tests that start programs: it is forked from a process that has imported torch and what goes with it.

Starting `sys.executable` costs seven seconds of processor time as soon as torch is imported. The file that `running`
writes is an executable that takes the same arguments, streams, environment, folder and signals, and ends with the same
status. What is another: the process's id is not that of the executable, and modules are imported already. A test of
what an import does or says starts a Python of its own.

Where tests run in several processes, the first of all imports torch and forks them too (`first`).
"""

from __future__ import annotations

import array
import fcntl
import gc
import importlib
import io
import json
import multiprocessing
import os
import runpy
import selectors
import signal
import socket
import struct
import subprocess
import sys
import time
import traceback
import types
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

__all__ = ["PYTHON", "first", "running"]

#: The environment's variable that names the executable of `first`.
PYTHON = "HINS_TESTS_PYTHON"
#: What all processes of the tests would import: nothing that reads their folders from the environment, as mem0 does,
#: and nothing of this project, which is to be covered.
_FIRST = (
    "sentence_transformers.sentence_transformer.trainer",
    "torch.distributed.launcher.api",
    "transformers.models.bert.modeling_bert",
    "alembic.command",
    "faiss",
    "fastapi",
    "graphiti_core",
    "langgraph.store.postgres",
    "llama_index.core",
    "openai",
    "portalocker",
    "qdrant_client",
    "scipy.cluster.hierarchy",
    "sqlalchemy.dialects.postgresql",
    "sqlalchemy.dialects.sqlite",
)
#: What the programs import, beside what the children of `child_process` have.
_IMPORTED = (
    "hins_memory.cli.app",
    "sentence_transformers.sentence_transformer.trainer",
    "torch.distributed.launcher.api",
)

#: How many descriptors a program may be given: the kernel passes no more.
_DESCRIPTORS = 253

# -S: no site-packages, of which it needs nothing.
_EXECUTABLE = """#!{python} -IS
import array, json, os, signal, socket, struct, sys

def is_open(number):
    try:
        return bool(os.fstat(number))
    except OSError:
        return False

# Those that are given on, too; not the one that lists them.
numbers = sorted({{0, 1, 2}} | set(map(int, os.listdir("/proc/self/fd"))))
numbers = [number for number in numbers if number < 3 or is_open(number)]
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
message = json.dumps([sys.argv[1:], dict(os.environ), os.getcwd(), numbers]).encode()
streams = array.array("i", numbers)
server.sendmsg([struct.pack("!I", len(message))], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, streams)])
server.sendall(message)
answers = server.makefile("rb")
pid = int(answers.readline())
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(number, lambda number, frame: os.kill(pid, number))
status = int(answers.readline() or -signal.SIGKILL)
if status < 0:
    if -status != signal.SIGKILL:
        signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
os._exit(status)
"""


@contextmanager
def running(folder: Path) -> Iterator[str]:
    """Have the server run within the block; yields the path of the executable, which is written into the folder."""
    from child_process import context

    address, executable = _executable(folder)
    server = context.Process(target=_serve_programs, args=(address, executable), daemon=True)
    server.start()
    _wait(address, server.is_alive)
    try:
        yield executable
    finally:
        server.kill()
        server.join()


@contextmanager
def first(folder: Path) -> Iterator[str]:
    """Have a server run that forks the processes of the tests themselves; yields the path of the executable."""
    address, executable = _executable(folder)
    code = f"import sys; sys.path.append({str(Path(__file__).parent)!r}); import forked_python as one"
    command = [sys.executable, "-c", f"{code}; one._serve({address!r}, 0, one._FIRST)"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as server:
        try:
            _wait(address, lambda: server.poll() is None)
            yield executable
        finally:
            server.kill()


def _executable(folder: Path) -> tuple[str, str]:
    """Write the executable; return the address of its server, and its path."""
    address, executable = str(folder / "socket"), folder / "python"
    executable.write_text(_EXECUTABLE.format(python=sys.executable, address=address), encoding="utf-8")
    executable.chmod(0o700)
    return address, str(executable)


def _wait(address: str, alive: Callable[[], bool]) -> None:
    while not os.path.exists(address):
        assert alive(), "the server of forked Pythons ended"
        time.sleep(0.01)


def _serve_programs(address: str, executable: str) -> None:
    import pytest
    from few_texts import take_few
    from torch.distributed.elastic.rendezvous import dynamic_rendezvous

    take_few(pytest.MonkeyPatch())
    # The name of a function for a log, for which torchrun reads the sources of all that is imported.
    dynamic_rendezvous.get_method_name = lambda depth=2: ""
    sys.executable = executable
    tests = multiprocessing.parent_process()
    assert tests is not None
    _serve(address, tests.sentinel, _IMPORTED)


def _serve(address: str, tests: int, imported: Sequence[str]) -> None:
    """Fork a program for each connection, until the process of the tests ends: its descriptor is readable then."""
    # A terminal's signal is for the programs.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in imported:
        # Where an extra is not installed, the tests that need it are skipped.
        with suppress(ImportError):
            importlib.import_module(name)
    # What a process makes when it loads its first model: a tenth of a second in each.
    with suppress(ImportError):
        from transformers.conversion_mapping import get_checkpoint_conversion_mapping

        get_checkpoint_conversion_mapping("bert")
    gc.freeze()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{address}.new")
    listener.listen(64)
    os.rename(f"{address}.new", address)
    programs = _Programs()
    programs.ready.register(listener, selectors.EVENT_READ)
    programs.ready.register(tests, selectors.EVENT_READ)
    while True:
        for key, _ in programs.ready.select():
            if key.fileobj is listener:
                programs.start(listener.accept()[0])
            elif key.fd == tests:
                programs.kill()
                os._exit(0)
            else:
                programs.end(key.fd)


class _Programs:
    """The programs that run; the end of one, or of its connection, makes a descriptor in `ready` readable."""

    def __init__(self) -> None:
        self.ready = selectors.DefaultSelector()
        self._running: dict[int, tuple[int, int, socket.socket]] = {}

    def start(self, connection: socket.socket) -> None:
        pid = _fork(connection, self.ready)
        process = os.pidfd_open(pid)
        for file in (process, connection.fileno()):
            self._running[file] = (pid, process, connection)
            self.ready.register(file, selectors.EVENT_READ)

    def end(self, file: int) -> None:
        """Say how a program ended; one whose executable was killed is killed too."""
        if file not in self._running:
            # Both of its descriptors were readable.
            return
        pid, process, connection = self._running[file]
        if file != process:
            os.kill(pid, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        for one in (process, connection.fileno()):
            self.ready.unregister(one)
            del self._running[one]
        with suppress(OSError):
            connection.sendall(b"%d\n" % status)
        connection.close()
        os.close(process)

    def kill(self) -> None:
        for pid, *_ in self._running.values():
            os.kill(pid, signal.SIGKILL)


def _fork(connection: socket.socket, ready: selectors.BaseSelector) -> int:
    """Read what is to be run and return the id of the process that runs it."""
    length, streams = struct.calcsize("!I"), array.array("i")
    head, ancillary, _, _ = connection.recvmsg(length, socket.CMSG_SPACE(_DESCRIPTORS * streams.itemsize))
    streams.frombytes(ancillary[0][2])
    message = b""
    while len(message) < struct.unpack("!I", head)[0]:
        message += connection.recv(1 << 20)
    arguments, environment, folder, numbers = json.loads(message)
    pid = os.fork()
    if not pid:
        for key in list(ready.get_map().values()):
            os.close(key.fd)
        connection.close()
        _give(streams, numbers)
        _become(environment, folder)
        _run(arguments)
    for stream in streams:
        os.close(stream)
    connection.sendall(b"%d\n" % pid)
    return pid


def _give(descriptors: Sequence[int], numbers: Sequence[int]) -> None:
    """Give the descriptors their numbers; first one that no other is to have."""
    above = [fcntl.fcntl(one, fcntl.F_DUPFD, max(numbers) + 1) for one in descriptors]
    for one in descriptors:
        os.close(one)
    for one, number in zip(above, numbers, strict=True):
        os.dup2(one, number)
        os.close(one)


def _become(environment: Mapping[str, str], folder: str) -> None:
    """Take over what a new process would have been given."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = [one for one in environment.get("PYTHONPATH", "").split(os.pathsep) if one and one not in sys.path]
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        errors = ("surrogateescape", "strict", "backslashreplace")[number]
        stream = io.TextIOWrapper(
            open(number, "wb" if number else "rb", closefd=False),  # noqa: SIM115
            encoding="utf-8",
            errors=errors,
            line_buffering=number == 2,
            write_through=bool(environment.get("PYTHONUNBUFFERED")),
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for option in filter(None, environment.get("PYTHONWARNINGS", "").split(",")):
        _warn(option)
    # It is the main process of its program, which may have children.
    multiprocessing.process._parent_process = None  # type: ignore[attr-defined]
    multiprocessing.process._children = set()  # type: ignore[attr-defined]
    current: Any = multiprocessing.current_process()
    current._name, current._config["daemon"] = "MainProcess", False


def _warn(option: str) -> None:
    sys.warnoptions.append(option)
    warnings._processoptions([option])  # type: ignore[attr-defined]


def _run(arguments: list[str]) -> None:
    """Run a program as ``python`` with these arguments does, and end the process as it does."""
    status = 0
    try:
        try:
            _run_main(arguments)
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else int(error.code is not None)
            if not isinstance(error.code, (int, type(None))):
                sys.stderr.write(f"{error.code}\n")
        except BaseException:
            traceback.print_exc()
            status = 1
        import atexit
        import threading

        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with suppress(ValueError):
                stream.flush()
    except BrokenPipeError:
        status = 120
    finally:
        os._exit(status & 0xFF)


def _run_main(arguments: list[str]) -> None:
    while arguments and arguments[0] in ("-W", "-B", "-u", "-I"):
        if arguments.pop(0) == "-W":
            _warn(arguments.pop(0))
    what, *rest = arguments
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    main.__dict__["__builtins__"] = __builtins__
    if what == "-m":
        sys.argv = ["-m", *rest[1:]]
        sys.path.insert(0, os.getcwd())
        runpy._run_module_as_main(rest[0])  # type: ignore[attr-defined]
    elif what == "-c":
        sys.argv = ["-c", *rest[1:]]
        sys.path.insert(0, "")
        exec(compile(rest[0], "<string>", "exec"), main.__dict__)
    else:
        sys.argv = [what, *rest]
        sys.path.insert(0, str(Path(what).resolve().parent))
        main.__file__ = what
        exec(compile(Path(what).read_bytes(), what, "exec"), main.__dict__)
