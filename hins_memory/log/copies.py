"""The files outside the log that hold texts of it (exports, mined examples), listed so that a purge can name them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import sqlalchemy as sa

from hins_memory.errors import LogError
from hins_memory.log.purge import PurgedError, purge_count
from hins_memory.types import now

__all__ = ["Copy", "known_copies", "work_folder", "writing_copy"]

_NAME = "copies.jsonl"


@dataclass(frozen=True, slots=True)
class Copy:
    """A file with texts of the log. `kind` says what wrote it; `time` is in seconds since the Unix epoch (UTC)."""

    path: str
    kind: str
    time: float

    def files(self) -> list[Path]:
        """Return its existing paths: the file, its work folder, and partial files that a killed process left."""
        path = Path(self.path)
        with contextlib.suppress(OSError):
            partial = [entry for entry in path.parent.iterdir() if entry.name.startswith(f".{path.name}.")]
            return [entry for entry in (path, work_folder(path), *sorted(partial)) if entry.exists()]
        return []


def work_folder(path: Path) -> Path:
    """Return the folder in which a mining run that writes a file keeps its intermediate results."""
    return path.with_name(f"{path.name}.work")


@contextlib.contextmanager
def writing_copy(root: Path, engine: sa.Engine, path: Path, kind: str) -> Iterator[None]:
    """Note that the block writes texts of the log to a file; remove the file if the log is purged meanwhile.

    Args:
        root: the project's folder.
        engine: the project's database.
        path: the file.
        kind: the command that writes it.

    Raises:
        PurgedError: the log was purged meanwhile; the file was removed.
        LogError: the project's folder cannot be written.
    """
    before = purge_count(engine)
    _note(root, Copy(str(path.absolute()), kind, now()))
    yield
    if purge_count(engine) != before:
        path.unlink(missing_ok=True)
        shutil.rmtree(work_folder(path), ignore_errors=True)
        raise PurgedError(str(path))


def _note(root: Path, copy: Copy) -> None:
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(root / _NAME, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, (json.dumps(asdict(copy)) + "\n").encode())
        finally:
            os.close(descriptor)
    except OSError as error:
        raise LogError(
            f"{root / _NAME} cannot be written: {error}.",
            "It says where texts of the log were written to: make the project's folder writable.",
        ) from error


def known_copies(root: Path) -> list[Copy]:
    """Return the files that were written on this host and still exist, each once, as it was written last."""
    latest: dict[str, Copy] = {}
    try:
        lines = (root / _NAME).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    for line in lines:
        # A kill, or a full disk, may leave a line half written.
        with contextlib.suppress(ValueError, TypeError):
            copy = Copy(**json.loads(line))
            latest[copy.path] = copy
    return [copy for copy in latest.values() if copy.files()]
