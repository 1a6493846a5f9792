"""Checkpoints of a training: which are complete, whose they are, and whether the disk has room for them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hins_memory.errors import TrainingError

__all__ = ["check_identity", "check_space", "latest_checkpoint", "mark_complete"]

_MARK = "complete.json"
_IDENTITY = "training.json"
# Written beside the weights: tokenizer, configuration, model card.
_SMALL_FILES = 16 << 20


def mark_complete(checkpoint: Path) -> None:
    """Record, after everything else is on the disk, which files a checkpoint has and how large they are."""
    sizes = {}
    for path in sorted(path for path in checkpoint.rglob("*") if path.is_file() and path.name != _MARK):
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
        sizes[path.relative_to(checkpoint).as_posix()] = path.stat().st_size
    _write_durably(checkpoint / _MARK, sizes)


def _write_durably(path: Path, content: Any) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8") as stream:
        json.dump(content, stream)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)


def _is_complete(checkpoint: Path) -> bool:
    try:
        sizes = json.loads((checkpoint / _MARK).read_text(encoding="utf-8"))
        return all((checkpoint / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, AttributeError):
        return False


def latest_checkpoint(folder: Path) -> Path | None:
    """Return the newest complete checkpoint of a run, or None; what a kill left half written is removed."""
    found = sorted(
        (path for path in folder.glob("checkpoint-*") if path.name.rpartition("-")[2].isdigit()),
        key=lambda path: int(path.name.rpartition("-")[2]),
    )
    complete = [path for path in found if _is_complete(path)]
    for path in found:
        if path not in complete:
            shutil.rmtree(path, ignore_errors=True)
    return complete[-1] if complete else None


def check_identity(folder: Path, identity: Mapping[str, Any]) -> None:
    """Record in a new run's folder what is trained, or see that it is what the folder's checkpoints are of.

    Raises:
        TrainingError: the folder is of another training: other settings, examples, base or number of processes.
    """
    path = folder / _IDENTITY
    wanted = json.loads(json.dumps(dict(identity)))
    if path.is_file():
        known = json.loads(path.read_text(encoding="utf-8"))
        if different := sorted(name for name in wanted if known.get(name) != wanted[name]):
            raise TrainingError(
                f"The checkpoints in {folder} are of another training; it differs in {', '.join(different)}.",
                "Continue with what it was started with, or start anew in another folder.",
            )
        return
    _write_durably(path, wanted)


def check_space(needs: Mapping[Path, int]) -> None:
    """See that there is room before the work starts.

    Args:
        needs: bytes to be written under each path; paths on one file system share its room.

    Raises:
        TrainingError: a file system has less room than is needed.
    """
    rooms: dict[int, tuple[Path, int]] = {}
    for path, size in needs.items():
        there = next(one for one in (path, *path.absolute().parents) if one.exists())
        device = there.stat().st_dev
        rooms[device] = (there, rooms.get(device, (there, 0))[1] + size + _SMALL_FILES)
    for there, needed in rooms.values():
        if (free := shutil.disk_usage(there).free) < needed:
            raise TrainingError(
                f"Training writes up to {_megabytes(needed)} MB to the file system of {there}, "
                f"which has {_megabytes(free)} MB free.",
                "Free disk space, or train the mode 'lora', whose checkpoints are small.",
            )


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f}"
