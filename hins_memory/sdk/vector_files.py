"""Texts with their vectors in a framework's own JSON files: an adapter derives from `VectorFiles`."""

from __future__ import annotations

import hashlib
import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from hins_memory.sdk.json_files import DamagedFileError, lock_of, read_json, write_json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Entry", "VectorFiles", "Vectors", "usable_vectors"]

logger = logging.getLogger(__name__)

#: Vectors by kind and id.
Vectors: TypeAlias = "dict[tuple[str, str], NDArray[np.float32]]"


@dataclass(frozen=True, slots=True)
class Entry:
    """One text with a vector, in the dict that the framework keeps it in: ``holder[field]`` is a list of floats."""

    kind: str
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


def usable_vectors(entries: Iterable[Entry], dim: int | None = None) -> Vectors:
    """Return the stored vectors by kind and id, each of shape (dim,); those of another length are left out."""
    import numpy as np

    vectors: Vectors = {}
    for entry in entries:
        vector = entry.vector
        if vector is not None and dim in (None, len(vector)):
            vectors[entry.kind, entry.id] = np.asarray(vector, dtype=np.float32)
    return vectors


class VectorFiles(ABC):
    """The JSON files of one store, and what hins-memory keeps beside them.

    Args:
        root: the store's folder.
    """

    #: the framework's name, for messages
    framework = ""
    #: the kinds of the texts; each is an index
    kinds: tuple[str, ...] = ()
    #: The key of a file that names the space of its vectors; absent while they are the framework's own. A framework
    #: that leaves the key out when it saves by itself never marks a file wrongly.
    space_key = "hins_encoder"

    def __init__(self, root: Path) -> None:
        self.root = root
        #: the folder of hins-memory in the store
        self.side_folder = root / ".hins"

    @abstractmethod
    def paths(self) -> list[Path]:
        """Return the files with vectors, of every user."""

    @abstractmethod
    def entries_in(self, document: Mapping[str, Any]) -> Iterator[Entry]:
        """Yield everything with a vector in the content of a file; what is malformed is left out."""

    def problem(self, document: Mapping[str, Any]) -> str:
        """Return in words what the framework could not use in the content of a file; "" for nothing."""
        return ""

    def lock(self, path: Path) -> AbstractContextManager[object]:
        """Return the lock that excludes every other thread and process of hins-memory that writes a file."""
        return lock_of(path, self.side_folder)

    def checked(self, path: Path) -> dict[str, Any] | None:
        """Return what a file holds, or None when there is no file.

        Raises:
            DamagedFileError: it is not JSON, or the framework could not use it.
            OSError: it cannot be read.
        """
        document: dict[str, Any] | None = read_json(path, dict)
        if document is not None and (problem := self.problem(document)):
            raise DamagedFileError(f"{path} is damaged: {problem}")
        return document

    def read(self, path: Path) -> dict[str, Any] | None:
        """Return what a file holds; None when there is no file, or a damaged one, which is reported.

        Raises:
            OSError: it cannot be read.
        """
        try:
            return self.checked(path)
        except DamagedFileError as error:
            logger.warning("%s. It is left as it is.", error)
            return None

    def space_of(self, document: Mapping[str, Any]) -> str:
        """Return the space that a file's vectors are marked with; "" for the framework's own encoder."""
        return str(document.get(self.space_key, ""))

    def marked(self, document: Mapping[str, Any], space: str) -> dict[str, Any]:
        """Return the content of a file with the mark of a space, or without a mark for ""."""
        rest = {key: value for key, value in document.items() if key != self.space_key}
        return rest | {self.space_key: space} if space else rest

    def write(self, path: Path, document: Mapping[str, Any], space: str) -> None:
        """Write a file whose vectors are of `space`, in one step and to the disk; the caller holds its `lock`.

        Raises:
            OSError: it cannot be written; the old file is as it was.
        """
        write_json(path, self.marked(document, space), durable=True)

    def entries(self, path: Path) -> list[Entry]:
        """Return what has a vector in a file; one that cannot be read has nothing, and is reported."""
        try:
            return list(self.entries_in(self.read(path) or {}))
        except OSError as error:
            logger.warning("%s is left out: %s", path, error)
            return []
