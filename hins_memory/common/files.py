"""Files: digests, who may read them, locks between the processes of one host, and errors of remote file systems."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from hins_memory.common.secrets import masked
from hins_memory.errors import HinsError

__all__ = [
    "file_digest",
    "file_identity",
    "file_lock",
    "file_system_errors",
    "keep_private",
    "known_digest",
    "private_file",
    "private_folder",
    "write_private",
]

logger = logging.getLogger(__name__)

_OTHERS = 0o077
#: nanoseconds after which a file's times change with its content, on any file system
_SETTLED_NS = 2_000_000_000
_digests: dict[tuple[str | int, ...], str] = {}


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def known_digest(path: Path) -> str:
    """Return `file_digest` of a file, remembered in this process for as long as the file looks untouched.

    A model of 90 MB takes a tenth of a second to read again. For what must be found damaged, use `file_digest`.
    """
    found = path.stat()
    key = (os.path.realpath(path), found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    if (digest := _digests.get(key)) is None:
        digest = file_digest(path)
        # A file that was written just now may be written again within the same tick of its clock.
        if time.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns) > _SETTLED_NS:
            _digests[key] = digest
    return digest


def file_identity(path: str | Path) -> tuple[int, int] | None:
    """Return what tells a file from another one under its name, its device and inode; None where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def private_folder(path: Path) -> Path:
    """Make a folder that only its owner can enter, if it is not there yet, and return it.

    Raises:
        OSError: it cannot be made.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def private_file(path: Path) -> None:
    """Make an empty file that only its owner can read, if it is not there yet; one that is there is not opened.

    Raises:
        OSError: it cannot be made.
    """
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))


def write_private(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write a new file that only its owner can read; an existing file of that name is removed first.

    Args:
        path: the file.
        content: what it holds.
        durable: whether it is on the disk when this returns, so that it survives a loss of power.

    Raises:
        OSError: it cannot be written, e.g. because the disk is full.
    """
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
        stream.write(content)
        if durable:
            stream.flush()
            os.fsync(stream.fileno())


def keep_private(path: Path) -> None:
    """Make a file or folder that holds conversations readable by its owner only, and log that; never raises."""
    try:
        mode = path.stat().st_mode
        if not mode & _OTHERS:
            return
        path.chmod(mode & ~_OTHERS & 0o7777)
    except FileNotFoundError:
        return
    except OSError as error:
        logger.warning("%s can be read by others, and that cannot be changed: %s", path, error)
    else:
        logger.warning("%s could be read by others; it is its owner's alone now", path)


@contextlib.contextmanager
def file_lock(path: Path, *, wait: bool = True) -> Iterator[TextIO]:
    """Hold an exclusive lock between the processes of this host; the end of the process releases it.

    Yields the locked file, for reading and appending. Use it and do not open the file again: on a network file
    system, closing any other descriptor of the file would release the lock.

    Raises:
        BlockingIOError: `wait` is False and another process or thread holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield stream


@contextlib.contextmanager
def file_system_errors(kind: type[HinsError], problem: str, hint: str) -> Iterator[None]:
    """Turn whatever a file system of fsspec raises into an error of ours: each has errors of its own.

    Args:
        kind: the class of the error.
        problem: what could not be done, without a full stop.
        hint: what to check.
    """
    try:
        yield
    except HinsError:
        raise
    except ImportError as error:
        raise kind(f"{problem}: {error}.", "For s3:// install hins-memory[s3], for gs:// gcsfs.") from error
    except Exception as error:
        raise kind(f"{problem}: {masked(f'{type(error).__name__}: {error}')}.", hint) from error
