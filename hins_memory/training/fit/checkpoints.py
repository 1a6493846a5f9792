"""Checkpoints of a training: which are complete, which training they belong to, and whether the disk has room."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hins_memory.common.files import file_digest, file_lock
from hins_memory.errors import TrainingError

__all__ = ["check_identity", "check_space", "latest_checkpoint", "locked", "mark_complete"]

_MARK = "complete.json"
_IDENTITY = "training.json"
_LOCK = "training.lock"
# Written beside the weights: tokenizer, configuration, model card.
_SMALL_FILES = 16 << 20


@contextlib.contextmanager
def locked(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Make a folder for checkpoints and lock it, so that no other training writes into it.

    Args:
        folder: the folder.
        wait: for the end of a training that has it, which is an error otherwise.

    Raises:
        TrainingError: another process trains in it, or it cannot be made.
    """
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(file_lock(folder / _LOCK, wait=wait))
        except BlockingIOError as error:
            raise TrainingError(
                f"Another training writes its checkpoints to {folder}.", "Wait for it, or use another folder."
            ) from error
        except OSError as error:
            raise _unusable(folder, error) from error
        yield


def _unusable(folder: Path, error: Exception) -> TrainingError:
    return TrainingError(
        f"The checkpoints in {folder} cannot be read or written: {error}",
        "Free disk space, fix its permissions or use another folder.",
    )


def mark_complete(checkpoint: Path) -> None:
    """Write the list of a checkpoint's files with their digests, after all files are on the disk.

    Raises:
        TrainingError: the disk is full or not writable; the checkpoint is not used.
    """
    try:
        digests = {}
        for path in sorted(path for path in checkpoint.rglob("*") if path.is_file() and path.name != _MARK):
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
            digests[path.relative_to(checkpoint).as_posix()] = file_digest(path)
        _write_durably(checkpoint / _MARK, digests)
    except OSError as error:
        raise TrainingError(
            f"The checkpoint {checkpoint} could not be written: {error}",
            "Free disk space; then `hins train --resume` continues from the one before.",
        ) from error


def _write_durably(path: Path, content: Any) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8") as stream:
        json.dump(content, stream)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)


def _is_complete(checkpoint: Path) -> bool:
    """Return whether all files of a checkpoint have the digests that they were written with."""
    try:
        digests = json.loads((checkpoint / _MARK).read_text(encoding="utf-8"))
        return all(file_digest(checkpoint / name) == digest for name, digest in digests.items())
    except (OSError, ValueError, AttributeError):
        return False


def latest_checkpoint(folder: Path) -> Path | None:
    """Return the newest complete checkpoint of a run, or None; incomplete and damaged ones are removed."""
    checkpoints = sorted(
        (path for path in folder.glob("checkpoint-*") if path.name.rpartition("-")[2].isdigit()),
        key=lambda path: int(path.name.rpartition("-")[2]),
    )
    for path in reversed(checkpoints):
        if _is_complete(path):
            return path
        shutil.rmtree(path, ignore_errors=True)
    return None


def check_identity(folder: Path, identity: Mapping[str, Any]) -> None:
    """Record in a new folder which training it belongs to; check it in a folder that has checkpoints.

    Raises:
        TrainingError: the folder is of another training: other settings, examples, base or number of processes; or its
            record cannot be read or written.
    """
    path = folder / _IDENTITY
    wanted = json.loads(json.dumps(dict(identity)))
    try:
        if not path.is_file():
            _write_durably(path, wanted)
            return
        known = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise _unusable(folder, error) from error
    if different := sorted(name for name in wanted if known.get(name) != wanted[name]):
        raise TrainingError(
            f"The checkpoints in {folder} are of another training; it differs in {', '.join(different)}.",
            "Continue with what it was started with, or start anew in another folder.",
        )


def check_space(needs: Mapping[Path, int]) -> None:
    """Check that the disks have room before the work starts.

    Args:
        needs: bytes to be written under each path; paths on one file system share its free space.

    Raises:
        TrainingError: a file system has less room than is needed.
    """
    totals: dict[int, tuple[Path, int]] = {}
    for path, size in needs.items():
        existing = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
        device = existing.stat().st_dev
        totals[device] = (existing, totals.get(device, (existing, 0))[1] + size + _SMALL_FILES)
    for existing, needed in totals.values():
        if (free := shutil.disk_usage(existing).free) < needed:
            raise TrainingError(
                f"Training writes up to {_megabytes(needed)} MB to the file system of {existing}, "
                f"which has {_megabytes(free)} MB free.",
                "Free disk space, or train the mode 'lora', whose checkpoints are small.",
            )


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f}"
