"""Untrusted JSON: limited in size before it is parsed, and without anything that other readers read differently."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NoReturn

__all__ = ["check_count", "check_json", "parse_json", "read_bounded"]

# Deeper than any encoder's file needs, and far below the depth at which Python's parser fails.
_DEPTH = 32
# Integers are within 64 bits, so that every reader and database can hold them.
_INT = 2**63
# Each value follows one of these, so that their count limits how many objects the parser makes.
_MARKS = (b",", b"[", b"{")
# The largest vocabularies have about 2 million; as many lists take 130 MB.
_VALUES = 4_000_000


def read_bounded(path: Path, limit: int) -> bytes:
    """Return the content of a plain file.

    Raises:
        ValueError: it is longer than `limit` bytes.
        OSError: it cannot be read.
    """
    with path.open("rb") as stream:
        content = stream.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"it is longer than {limit} bytes")
    return content


def parse_json(content: bytes, *, limit: int, values: int = _VALUES) -> Any:
    """Parse JSON and refuse what is ambiguous or does not fit into a database.

    Refused are names that come twice in one object, NaN and infinities, integers of more than 64 bits, strings with
    NUL or half a surrogate pair, and nesting deeper than 32.

    Args:
        content: UTF-8.
        limit: at most this many bytes.
        values: at most about this many values.

    Raises:
        ValueError: it is not such JSON.
    """
    if len(content) > limit:
        raise ValueError(f"it is longer than {limit} bytes")
    check_count(content, values)
    try:
        value = json.loads(content.decode("utf-8"), object_pairs_hook=_object, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ValueError(f"it is nested deeper than {_DEPTH}") from error
    check_json(value)
    return value


def check_count(content: bytes, values: int = _VALUES) -> None:
    """Make sure that JSON holds at most about this many values, without parsing it.

    Raises:
        ValueError: it may hold more.
    """
    if sum(content.count(mark) for mark in _MARKS) > values:
        raise ValueError(f"it holds more than {values} values")


def check_json(value: Any, depth: int = _DEPTH) -> None:
    """Check that a value holds nothing that `parse_json` refuses.

    Raises:
        ValueError: it holds something else; the message says what.
    """
    if isinstance(value, (dict, list)):
        if not depth:
            raise ValueError(f"it is nested deeper than {_DEPTH}")
        for name in value if isinstance(value, dict) else ():
            if not isinstance(name, str):
                raise ValueError(f"it has a name that is not a string: {str(name)[:40]!r}")
            _check_text(name)
        for item in value.values() if isinstance(value, dict) else value:
            check_json(item, depth - 1)
    else:
        _check_scalar(value)


def _check_scalar(value: Any) -> None:
    if isinstance(value, str):
        _check_text(value)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"it holds {value}, which is not a number of JSON")
    elif isinstance(value, int):
        if not -_INT <= value < _INT:
            raise ValueError("it holds an integer of more than 64 bits")
    elif value is not None:
        raise ValueError(f"it holds a {type(value).__name__}, which JSON does not know")


def _check_text(text: str) -> None:
    if "\0" in text:
        raise ValueError("it holds a NUL character")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError("it holds half a surrogate pair") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("it holds a name twice in one object")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"it holds {name}, which is not a number of JSON")
