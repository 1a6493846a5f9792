"""Several files that belong together, written in one step: after a kill all are as before, or all are new."""

from __future__ import annotations

import os
from pathlib import Path

from hins_memory.common.files import write_private

__all__ = ["FileGroup"]

# The new files that replace the old ones, and the file that says that all new ones are complete.
_NEW, _READY = ".new", ".ready"


class FileGroup:
    """Files of one name with several endings in one folder.

    Args:
        folder: the folder.
        name: what the files' names begin with.
        endings: what they end with, e.g. ``.faiss`` and ``.json``.
    """

    def __init__(self, folder: Path, name: str, endings: tuple[str, ...]) -> None:
        self.paths = tuple(folder / f"{name}{ending}" for ending in endings)
        self._new = tuple(folder / f"{name}{ending}{_NEW}" for ending in endings)
        self._ready = folder / f"{name}{_READY}"

    def write(self, contents: tuple[bytes, ...]) -> None:
        """Write all files; they are readable by their owner only.

        Raises:
            OSError: the disk is full or not writable; the files are as they were before.
        """
        try:
            for path, content in zip(self._new, contents, strict=True):
                write_private(path, content)
            self._ready.touch(mode=0o600)
        except OSError:
            for path in self._new:
                path.unlink(missing_ok=True)
            raise
        self.finish()

    def finish(self) -> None:
        """Finish a write that was killed while it replaced the files; to be called before they are read."""
        if not self._ready.exists():
            return
        for new, path in zip(self._new, self.paths, strict=True):
            if new.exists():
                os.replace(new, path)
        self._ready.unlink()

    def forget(self) -> None:
        """Remove what a killed write left."""
        for path in (*self._new, self._ready):
            path.unlink(missing_ok=True)
