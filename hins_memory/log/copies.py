"""Files that hold texts of the log and were written elsewhere: which there are, so that a purge can name them."""

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
        """Return what is there of it: the file, what a killed process left half written beside it, its work folder."""
        path = Path(self.path)
        with contextlib.suppress(OSError):
            beside = [one for one in path.parent.iterdir() if one.name.startswith(f".{path.name}.")]
            return [one for one in (path, work_folder(path), *sorted(beside)) if one.exists()]
        return []


def work_folder(path: Path) -> Path:
    """Return where a mining into a file keeps what it has so far."""
    return path.with_name(f"{path.name}.work")


@contextlib.contextmanager
def writing_copy(root: Path, engine: sa.Engine, path: Path, kind: str) -> Iterator[None]:
    """Note that texts of the log are written to a file in the block; the file goes if the log was purged meanwhile.

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
    """Return the files that were written on this host and are still there, each once, the latest writing of it."""
    found: dict[str, Copy] = {}
    try:
        lines = (root / _NAME).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    for line in lines:
        # A kill, or a full disk, may leave a line half written.
        with contextlib.suppress(ValueError, TypeError):
            copy = Copy(**json.loads(line))
            found[copy.path] = copy
    return [copy for copy in found.values() if copy.files()]
