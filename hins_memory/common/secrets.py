"""Masks secrets in texts: passwords in URLs and connection strings, and known keys."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping

__all__ = ["masked", "secrets_in"]

_MASK = "***"
# user:password@ of a URL; the password may hold an unquoted @ itself.
_IN_URL = re.compile(r"(//[^\s/@:]*:)\S+(?=@)")
_NAME = r"(?:password|passwd|passphrase|pwd|secret|token|credentials?|(?:api|access|secret|private)[-_]?key)"
_NAMED = re.compile(rf"({_NAME}['\"]?\s*[=:]\s*(?:SecretStr\()?['\"]?)[^\s'\"&,;)\]}}]+", re.IGNORECASE)
_SECRET_NAME = re.compile(_NAME, re.IGNORECASE)
# A shorter secret would match parts of ordinary words.
_SHORTEST = 6


def masked(text: str, known: Iterable[str] = ()) -> str:
    """Return a text, e.g. of an error, with each secret in it replaced by ``***``.

    Args:
        text: the text.
        known: secrets to look for; those in the environment are looked for too.
    """
    for secret in sorted({*known, *_in_environment()}, key=len, reverse=True):
        if len(secret) >= _SHORTEST:
            text = text.replace(secret, _MASK)
    return _NAMED.sub(rf"\g<1>{_MASK}", _IN_URL.sub(rf"\g<1>{_MASK}", text))


def secrets_in(config: object) -> set[str]:
    """Return the values under names of secrets in a configuration: in nested mappings and sequences."""
    return set(_secrets(config, named=False))


def _secrets(value: object, *, named: bool) -> Iterator[str]:
    if isinstance(value, str):
        if named:
            yield value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _secrets(item, named=named or _SECRET_NAME.search(str(name)) is not None)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _secrets(item, named=named)


def _in_environment() -> Iterator[str]:
    return (value for name, value in os.environ.items() if _SECRET_NAME.search(name))
