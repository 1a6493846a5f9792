"""Checks of an encoder version's folder, a place to unpack one, and its durable move into place."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from hins_memory.common.files import file_digest, file_lock
from hins_memory.encoders.contents import check_contents, check_kinds, file_names
from hins_memory.encoders.manifest import MANIFEST_NAME
from hins_memory.errors import EncoderError

__all__ = ["checked_files", "move_durably", "unpacking"]

_UNPACKING = ".import-"


def checked_files(folder: Path) -> dict[str, str]:
    """Return {relative path: SHA-256} of an encoder folder, or raise an EncoderError that says what is wrong."""
    if not folder.is_dir():
        raise EncoderError(f"There is no folder {folder}.", "Give the folder that SentenceTransformer.save wrote.")
    names = file_names(folder)
    for name in sorted(names):
        if (path := folder / name).is_symlink() or not path.is_file():
            raise EncoderError(f"{path} is not a plain file.", "Replace links by the files themselves.")
    check_kinds(names, str(folder))
    check_contents(folder, names)
    return {name: file_digest(folder / name) for name in sorted(names)}


def move_durably(folder: Path, target: Path, manifest: bytes) -> None:
    """Write the manifest, make everything durable, and rename the folder to its place in one step."""
    target.parent.mkdir(parents=True, exist_ok=True)
    source = folder
    try:
        if folder.stat().st_dev != target.parent.stat().st_dev:
            # Another file system: copy beside the target first, so that the last step is a rename.
            source = target.parent / f".incoming-{uuid.uuid4().hex}"
            shutil.copytree(folder, source)
        # A link of that name must not be followed.
        (source / MANIFEST_NAME).unlink(missing_ok=True)
        (source / MANIFEST_NAME).write_bytes(manifest)
        for path in (*source.rglob("*"), source):
            _fsync(path)
        os.rename(source, target)
        _fsync(target.parent)
    except BaseException:
        if source != folder:
            shutil.rmtree(source, ignore_errors=True)
        raise
    if source != folder:
        shutil.rmtree(folder)


@contextlib.contextmanager
def unpacking(encoders: Path, lock: Path) -> Iterator[Path]:
    """Yield a private folder beside the versions; removed at the end, after a kill by the next call."""
    with file_lock(lock):
        # We hold the lock, so the process that left one has ended.
        for left in encoders.glob(f"{_UNPACKING}*"):
            shutil.rmtree(left, ignore_errors=True)
        encoders.mkdir(parents=True, exist_ok=True)
        folder = encoders / f"{_UNPACKING}{uuid.uuid4().hex}"
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems cannot sync a directory.
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(descriptor)
