"""JSON from strangers: bounded before it is parsed, and nothing in it that another reader would take differently."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NoReturn

__all__ = ["check_count", "check_json", "parse_json", "read_bounded"]

# Deeper than any file of an encoder; far from where Python's parser gives up.
_DEPTH = 32
# Integers that every reader, the databases' included, has room for.
_INT = 2**63
# What separates values: their count bounds how many objects the parser makes, whatever the size in bytes.
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
        found = json.loads(content.decode("utf-8"), object_pairs_hook=_object, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ValueError(f"it is nested deeper than {_DEPTH}") from error
    check_json(found)
    return found


def check_count(content: bytes, values: int = _VALUES) -> None:
    """Make sure that JSON holds at most about this many values, without parsing it.

    Raises:
        ValueError: it may hold more.
    """
    if sum(content.count(mark) for mark in _MARKS) > values:
        raise ValueError(f"it holds more than {values} values")


def check_json(value: Any, depth: int = _DEPTH) -> None:
    """Make sure that a value is made of what `parse_json` lets through.

    Raises:
        ValueError: it is not.
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
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("it holds a name twice in one object")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"it holds {name}, which is not a number of JSON")
