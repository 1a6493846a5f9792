"""What an encoder version's folder may hold, and its durable move into place."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from pathlib import Path

from hins_memory.common.files import file_digest
from hins_memory.encoders.encoder import MANIFEST_NAME
from hins_memory.errors import EncoderError

__all__ = ["checked_files", "move_durably"]

# Formats that run code when they are read, and code itself: a version holds safetensors weights only.
_UNSAFE_SUFFIXES = frozenset({".bin", ".ckpt", ".dill", ".h5", ".joblib", ".pickle", ".pkl", ".pt", ".pth", ".py"})


def checked_files(folder: Path) -> dict[str, str]:
    """Return {relative path: SHA-256} of an encoder folder, or raise an EncoderError that says what is wrong."""
    if not folder.is_dir():
        raise EncoderError(f"There is no folder {folder}.", "Give the folder that SentenceTransformer.save wrote.")
    if not (folder / "modules.json").is_file():
        raise EncoderError(
            f"{folder} is not a sentence-transformers folder: modules.json is missing.",
            "Give the folder that SentenceTransformer.save wrote.",
        )
    paths = sorted(path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    for path in paths:
        if path.is_symlink() or not path.is_file():
            raise EncoderError(f"{path} is not a plain file.", "Replace links by the files themselves.")
        if path.suffix.lower() in _UNSAFE_SUFFIXES:
            raise EncoderError(f"{path} may run code when it is read.", "Keep safetensors weights only.")
    if not any(path.suffix == ".safetensors" for path in paths):
        raise EncoderError(f"{folder} holds no safetensors weights.", "Save it with safe_serialization=True.")
    names = {path.relative_to(folder).as_posix(): path for path in paths}
    return {name: file_digest(path) for name, path in names.items() if name != MANIFEST_NAME}


def move_durably(folder: Path, target: Path, manifest: str) -> None:
    """Write the manifest, make everything durable, and rename the folder to its place in one step."""
    target.parent.mkdir(parents=True, exist_ok=True)
    source = folder
    try:
        if folder.stat().st_dev != target.parent.stat().st_dev:
            # Another file system: copy beside the target first, so that the last step is a rename all the same.
            source = target.parent / f".incoming-{uuid.uuid4().hex}"
            shutil.copytree(folder, source)
        (source / MANIFEST_NAME).write_text(manifest, encoding="utf-8")
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
