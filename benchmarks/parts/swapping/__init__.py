"""A large Mem0 under load.

In: a memory, a count, a seed. Out: every call with its time, and what it found wrong.
"""

__all__ = ["load"]
