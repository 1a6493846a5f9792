"""What any room may use: files, locks, pages, and texts made fit to be looked at.

In: paths and plain values. Out: digests, locks, HTML and printable texts. It knows nothing of memories or encoders.
"""

__all__: list[str] = []
