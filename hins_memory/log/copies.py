"""The files outside the log that hold texts of it (exports, mined examples), listed so that a purge can name them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import sqlalchemy as sa

from hins_memory.common.secrets import masked
from hins_memory.errors import LogError
from hins_memory.log.parquet import is_url
from hins_memory.log.purge import PurgedError, purge_count
from hins_memory.types import now

__all__ = ["Copy", "known_copies", "work_folder", "writing_copy"]

_NAME = "copies.jsonl"


@dataclass(frozen=True, slots=True)
class Copy:
    """A file with texts of the log, or a folder or URL of an export as Parquet files.

    `kind` says what wrote it; `time` is in seconds since the Unix epoch (UTC).
    """

    path: str
    kind: str
    time: float

    @property
    def remote(self) -> bool:
        """Whether it is not on this host's file system."""
        return is_url(self.path)

    def files(self) -> list[Path]:
        """Return its existing paths: the file, its work folder, and partial files that a killed process left."""
        if self.remote:
            return []
        path = Path(self.path)
        if path.is_dir():
            return [path] if any(path.glob("*/part-*.parquet")) else []
        with contextlib.suppress(OSError):
            partial = [entry for entry in path.parent.iterdir() if entry.name.startswith(f".{path.name}.")]
            return [entry for entry in (path, work_folder(path), *sorted(partial)) if entry.exists()]
        return []


def work_folder(path: Path) -> Path:
    """Return the folder in which a mining run that writes a file keeps its intermediate results."""
    return path.with_name(f"{path.name}.work")


@contextlib.contextmanager
def writing_copy(
    root: Path, engine: sa.Engine, path: Path | str, kind: str, remove: Callable[[], None] | None = None
) -> Iterator[None]:
    """Note that the block writes texts of the log to a file; remove the file if the log is purged meanwhile.

    Args:
        root: the project's folder.
        engine: the project's database.
        path: the file; or the folder or URL of an export.
        kind: the command that writes it.
        remove: removes what was written; by default the file and its work folder.

    Raises:
        PurgedError: the log was purged meanwhile; the file was removed.
        LogError: the project's folder cannot be written.
    """
    before = purge_count(engine)
    where = masked(str(path)) if is_url(str(path)) else str(Path(path).absolute())
    _note(root, Copy(where, kind, now()))
    yield
    if purge_count(engine) != before:
        if remove is not None:
            remove()
        else:
            Path(path).unlink(missing_ok=True)
            shutil.rmtree(work_folder(Path(path)), ignore_errors=True)
        raise PurgedError(where)


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
    """Return what was written on this host and still exists, each once, as it was written last.

    Whether an export at a URL still exists is not looked up.
    """
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
    return [copy for copy in latest.values() if copy.remote or copy.files()]
