"""MemoryOS's JSON files: their entries with vectors, writing in one step, setting damaged files aside."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import shutil
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hins_memory.common.files import file_lock, private_folder, write_private
from hins_memory.common.text import well_formed

__all__ = [
    "KINDS",
    "SPACE_KEY",
    "DamagedFileError",
    "Entry",
    "Kind",
    "encodable",
    "entries",
    "is_inside",
    "misshapen",
    "page_text",
    "read_json",
    "set_aside",
    "side_folder",
    "store_files",
    "write_json",
    "writing",
]

logger = logging.getLogger(__name__)

#: What a vector belongs to: a segment's summary, a page, or an entry of user or assistant knowledge.
Kind = Literal["summaries", "pages", "knowledge"]
KINDS: tuple[Kind, ...] = ("summaries", "pages", "knowledge")

#: The key that names the encoder version of a file's vectors; absent when they are MemoryOS's own. MemoryOS ignores
#: it on loading and leaves it out on saving, so a file that it saved by itself is never taken for one of ours.
SPACE_KEY = "hins_encoder"

_KNOWLEDGE = ("knowledge_base", "assistant_knowledge")
# Where the files with vectors are, and their names.
_FILES: Mapping[str, tuple[str, ...]] = {
    "users": ("mid_term.json", "long_term_user.json"),
    "assistants": ("long_term_assistant.json",),
}


class DamagedFileError(ValueError):
    """A file that is not what MemoryOS writes."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One text with a vector, in the dict that MemoryOS keeps it in: ``holder[field]`` is a list of floats."""

    kind: Kind
    text: str
    holder: dict[str, Any]
    field: str

    @property
    def id(self) -> str:
        """The digest of the text, which identifies it: equal texts have equal vectors."""
        return hashlib.sha256(self.text.encode("utf-8")).hexdigest()[:32]

    @property
    def vector(self) -> Sequence[float] | None:
        """The stored vector, or None when there is none that can be used: one of finite numbers."""
        stored = self.holder.get(self.field)
        if not isinstance(stored, list) or not stored:
            return None
        usable = all(isinstance(number, (int, float)) and math.isfinite(number) for number in stored)
        return stored if usable else None


def encodable(text: Any) -> str:
    """Return a text as an encoder can read it: a lone surrogate, which UTF-8 cannot encode, becomes U+FFFD."""
    return well_formed(str(text))


def page_text(page: Mapping[str, Any]) -> str:
    """Return the text of a page that MemoryOS embeds."""
    return encodable(f"User: {page.get('user_input', '')} Assistant: {page.get('agent_response', '')}")


def entries(document: Mapping[str, Any]) -> Iterator[Entry]:
    """Yield everything with a vector in a mid-term or long-term document; whatever is malformed is left out."""
    sessions = document.get("sessions")
    for session in list(sessions.values()) if isinstance(sessions, Mapping) else ():
        if not isinstance(session, dict):
            continue
        yield Entry("summaries", encodable(session.get("summary", "")), session, "summary_embedding")
        for page in _listed(session.get("details")):
            if isinstance(page, dict):
                yield Entry("pages", page_text(page), page, "page_embedding")
    for name in _KNOWLEDGE:
        for entry in _listed(document.get(name)):
            if isinstance(entry, dict):
                yield Entry("knowledge", encodable(entry.get("knowledge", "")), entry, "knowledge_embedding")


def _listed(value: Any) -> list[Any]:
    """Return a list, or what a deque holds; [] for anything else."""
    return list(value) if isinstance(value, (list, tuple, deque)) else []


def store_files(root: Path) -> list[Path]:
    """Return the files with vectors of every user and assistant under a data_storage_path; links are followed."""
    return sorted(
        path
        for folder, names in _FILES.items()
        for path in _walk(root / folder)
        if path.name in names and path.is_file()
    )


def _walk(folder: Path) -> Iterator[Path]:
    seen: set[str] = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        # A link may lead to a folder above it.
        if (real := os.path.realpath(parent)) in seen:
            folders.clear()
            continue
        seen.add(real)
        yield from (Path(parent) / name for name in names)


def is_inside(id_: Any) -> bool:
    """Return whether a user's or assistant's id, of which MemoryOS makes a path, stays in the folder meant for it."""
    path = Path(os.fspath(id_))
    return not path.is_absolute() and ".." not in path.parts


def side_folder(root: Path) -> Path:
    """Return the folder of hins-memory in a data_storage_path."""
    return root / ".hins"


def writing(root: Path, path: Path) -> AbstractContextManager[object]:
    """Return the lock that excludes every other thread and process of hins-memory that writes a file of a store."""
    digest = hashlib.sha256(os.path.realpath(path).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return file_lock(private_folder(side_folder(root)) / "locks" / digest)


def read_json(path: Path, kind: type[list[Any]] | type[dict[str, Any]]) -> Any:
    """Return what a file holds, or None when there is no file.

    Raises:
        DamagedFileError: it is not JSON, or no list or object as it should be.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, kind):
        raise DamagedFileError(f"{path} holds a {type(content).__name__}, not a {kind.__name__}")
    if isinstance(content, dict) and (wrong := misshapen(content)):
        raise DamagedFileError(f"{path} is not what MemoryOS writes: {wrong}")
    return content


def misshapen(document: Mapping[str, Any]) -> str:
    """Return in words which part of a mid-term or long-term document MemoryOS could not use; "" for none."""
    sessions = document.get("sessions", {})
    if not isinstance(sessions, dict) or not all(isinstance(session, dict) for session in sessions.values()):
        return "sessions are not objects"
    if not all(_lists_objects(session.get("details", [])) for session in sessions.values()):
        return "the pages of a session are not a list of objects"
    wrong = next((name for name in _KNOWLEDGE if not _lists_objects(document.get(name, []))), "")
    return f"{wrong} is not a list of objects" if wrong else ""


def _lists_objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, dict) for one in value)


def write_json(path: Path, document: Any, *, durable: bool = False) -> None:
    """Write a file in MemoryOS's format in one step: after a crash, the old or the new file is there.

    The caller holds the lock of `writing`.

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
    logger.error(
        "%s. MemoryOS would start empty and overwrite it, so it was moved to %s. Repair it and move it back.",
        reason,
        target,
    )
    return target
