"""What any room may use: files, locks and pages.

In: paths and plain values. Out: digests, locks and HTML. It knows nothing of memories or encoders.
"""

__all__: list[str] = []
