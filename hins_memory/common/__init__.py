"""Helpers that any room may use: files, locks, HTML pages, and texts that are safe to print.

In: paths and plain values. Out: digests, locks, HTML and printable texts. It knows nothing of memories or encoders.
"""

__all__: list[str] = []
