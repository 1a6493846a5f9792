"""Second processes for tests: real ones, which can be killed, but do not spend seconds on importing torch."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import tempfile
from multiprocessing import forkserver, spawn
from pathlib import Path

from hins_memory.testing.processes import SECONDS, Child, children, context

__all__ = ["Child", "children", "run_python", "start_server"]

context.set_forkserver_preload(
    [
        "sentence_transformers",
        "hins_adapter_mem0.memory",
        "hins_memory.testing",
        "hins_memory.training",
        # What each child would import by itself as soon as it opens a log, a store or an encoder.
        "faiss",
        "mem0.vector_stores.qdrant",
        "opentelemetry.trace",
        "portalocker",
        "sqlalchemy.dialects.sqlite",
        "transformers.models.bert.modeling_bert",
    ]
)


def start_server(python: str) -> None:
    """Have the children's server started as a program of this Python, which has imported most of what it needs."""
    own = spawn.get_executable()
    spawn.set_executable(python)
    forkserver.ensure_running()
    spawn.set_executable(own)


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -c code arguments`` to its end, without the 7 seconds of processor time that importing torch takes.

    Functions that are registered with atexit are not called: a test of those starts a Python of its own.
    """
    with tempfile.TemporaryDirectory(prefix="hins-child-") as folder:
        process = context.Process(target=_run, args=(folder, code, arguments, dict(os.environ)))
        process.start()
        process.join(SECONDS)
        if process.is_alive():
            process.kill()
            raise AssertionError("the child does not end")
        out, errors = (Path(folder, name).read_text(encoding="utf-8") for name in ("out", "errors"))
        return subprocess.CompletedProcess([code, *arguments], process.exitcode or 0, out, errors)


def _run(folder: str, code: str, arguments: tuple[str, ...], environment: dict[str, str]) -> None:
    gc.freeze()
    for number, name in ((1, "out"), (2, "errors")):
        os.dup2(os.open(f"{folder}/{name}", os.O_WRONLY | os.O_CREAT, 0o600), number)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["-c", *arguments]
    exec(compile(code, "<child>", "exec"), {"__name__": "__main__"})
