"""Files: their digests, and locks between the processes of one host."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

__all__ = ["file_digest", "file_lock"]


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


@contextlib.contextmanager
def file_lock(path: Path, *, wait: bool = True) -> Iterator[TextIO]:
    """Hold an exclusive lock between the processes of this host; the end of the process releases it.

    Gives the locked file, for reading and appending. Use that and do not open the file again: on a network file
    system closing any descriptor of it would drop the lock.

    Raises:
        BlockingIOError: `wait` is False and somebody else holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield stream
