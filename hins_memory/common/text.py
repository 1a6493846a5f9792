"""Texts that can be encoded as UTF-8."""

from __future__ import annotations

__all__ = ["well_formed"]


def well_formed(text: str) -> str:
    """Return a text that UTF-8 can encode: a lone surrogate becomes U+FFFD, a pair becomes its character."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        # Through UTF-16, so that a pair of surrogates becomes its character.
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
