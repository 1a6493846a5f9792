"""Packaged files and their readers: sample conversations, general-retrieval questions, memory skills, the starter.

In: names of packaged files. Out: typed rows and conversations.
"""

from __future__ import annotations

import contextlib
import json
from importlib import resources
from typing import TYPE_CHECKING, Any

from hins_memory.errors import HinsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from importlib.abc import Traversable

__all__ = ["packaged", "read_rows", "reading"]


def packaged(name: str) -> Traversable:
    """Return the path of a packaged file, which may be missing."""
    return resources.files("hins_memory") / "data" / name


@contextlib.contextmanager
def reading(path: Traversable, what: str) -> Iterator[None]:
    """Turn errors of reading a packaged file into one clear error.

    Args:
        path: the file.
        what: what it is, for the message.

    Raises:
        HinsError: the file is missing or damaged.
    """
    try:
        yield
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise HinsError(
            f"The packaged {what} {path} cannot be read: {type(error).__name__}: {error}",
            "Reinstall hins-memory: pip install --force-reinstall hins-memory",
        ) from error


def read_rows(path: Traversable, what: str, columns: Sequence[str]) -> list[dict[str, Any]]:
    """Return the rows of a file of JSON lines; the values of the columns are texts or None.

    Args:
        path: the file.
        what: what it is, for the message.
        columns: what every row must have.

    Raises:
        HinsError: the file is missing or damaged.
    """
    with reading(path, what):
        # not str.splitlines, which would also break a row at a character such as U+2028
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").strip().split("\n")]
        values = [row[name] for row in rows for name in columns]
        if wrong := [value for value in values if not isinstance(value, (str, type(None)))]:
            raise TypeError(f"{wrong[0]!r} is not a text")
    return rows
