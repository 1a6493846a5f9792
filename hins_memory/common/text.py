"""Texts made fit for UTF-8."""

from __future__ import annotations

__all__ = ["well_formed"]


def well_formed(text: str) -> str:
    """Return a text that has UTF-8: half a surrogate pair becomes U+FFFD, two halves become their character."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        # Through UTF-16, so that two halves of one character become that character again.
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
