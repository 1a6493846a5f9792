"""JSON files that a framework writes: read with care, written in one step, set aside when they are damaged."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from hins_memory.common.files import file_lock, private_folder, write_private

__all__ = ["DamagedFileError", "files_below", "lock_of", "read_json", "set_aside", "write_json"]

logger = logging.getLogger(__name__)


class DamagedFileError(ValueError):
    """A file that is not what the framework writes."""


def files_below(folder: Path, names: Iterable[str]) -> Iterator[Path]:
    """Yield the files of these names in a folder and below; links are followed, each folder once."""
    wanted, seen = set(names), set[str]()
    for parent, folders, found in os.walk(folder, followlinks=True):
        # A link may lead to a folder above it.
        if (real := os.path.realpath(parent)) in seen:
            folders.clear()
            continue
        seen.add(real)
        yield from (path for name in found if name in wanted and (path := Path(parent) / name).is_file())


def lock_of(path: Path, folder: Path) -> AbstractContextManager[object]:
    """Return the lock that excludes every other thread and process of hins-memory that writes a file.

    Args:
        path: the file, by any of its names.
        folder: where locks are kept; made private if it is not there.
    """
    digest = hashlib.sha256(os.path.realpath(path).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return file_lock(private_folder(folder) / "locks" / digest)


def read_json(path: Path, kind: type[list[Any]] | type[dict[str, Any]]) -> Any:
    """Return what a file holds, or None when there is no file.

    Raises:
        DamagedFileError: it is not JSON, or no list or object as it should be.
        OSError: it cannot be read.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, kind):
        raise DamagedFileError(f"{path} holds a {type(content).__name__}, not a {kind.__name__}")
    return content


def write_json(path: Path, document: Any, *, durable: bool = False) -> None:
    """Write a file in one step: after a crash, the old or the new file is there. The caller holds `lock_of` it.

    Args:
        path: the file.
        document: its content.
        durable: whether it has to survive a loss of power too, which takes some milliseconds.

    Raises:
        OSError: it cannot be written, e.g. because the disk is full; the old file is as it was.
    """
    target = Path(os.path.realpath(path))
    scratch = target.with_name(f".{target.name}.hins-tmp")
    try:
        text = json.dumps(document, ensure_ascii=False, indent=2).encode("utf-8")
    except UnicodeEncodeError:
        # A lone surrogate, which UTF-8 cannot encode: it is written as a JSON escape.
        text = json.dumps(document, ensure_ascii=True, indent=2).encode("ascii")
    try:
        write_private(scratch, text, durable=durable)
        # An existing file keeps the mode that its owner gave it.
        if target.exists():
            shutil.copymode(target, scratch)
        os.replace(scratch, target)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def set_aside(path: Path, reason: str) -> Path:
    """Rename a damaged file, so that nothing overwrites it, and report it; return where it is now."""
    name = f"{path.name}.damaged-{time.strftime('%Y%m%dT%H%M%S')}"
    target, number = path.with_name(name), 1
    while target.exists():
        number += 1
        target = path.with_name(f"{name}-{number}")
    path.rename(target)
    logger.error("%s. It was moved to %s: repair it and move it back.", reason, target)
    return target
