"""Faster training on a CPU with the same result: freed memory is reused, and the plain attention kernel is used.

A training step allocates and frees the same large tensors many times over. By default glibc returns such blocks to the
system at once, and every next one begins as pages that the kernel has to clear. With ``mallopt`` (man 3 mallopt) freed
blocks are kept for the next step. Other C libraries and systems are left as they are.

torch's fused attention is made for long texts: on CPUs, going backward through it for texts of a few dozen tokens takes
about twice as long as through the plain formula. With dropout torch uses the plain formula anyway.
"""

from __future__ import annotations

import ctypes
import os
import platform
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = ["fast_cpu_training", "keep_freed_memory"]

# Up to this many tokens a text the plain formula is quicker, and its (tokens x tokens) matrices are small.
_PLAIN_ATTENTION_TOKENS = 512

# Parameters of mallopt, from malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
# Blocks of up to this size come from the heap ...
_KEPT_BYTES = 1 << 30
# ... or, where an older glibc refuses that, up to the most that every glibc takes.
_OLD_LIMIT = 32 << 20
_NEVER_TRIM = (1 << 31) - 1
# Afterwards: what glibc's own adjustment ends at in a process that has freed large blocks.
_USUAL_MMAP, _USUAL_TRIM = 32 << 20, 64 << 20

_lock = threading.Lock()
_users = 0


@lru_cache(maxsize=1)
def _glibc() -> ctypes.CDLL | None:
    """Return the C library where it is glibc, else None."""
    if platform.libc_ver()[0] != "glibc":
        return None
    try:
        library = ctypes.CDLL(None)
        library.mallopt.argtypes, library.mallopt.restype = [ctypes.c_int, ctypes.c_int], ctypes.c_int
        library.malloc_trim.argtypes, library.malloc_trim.restype = [ctypes.c_size_t], ctypes.c_int
    except (OSError, AttributeError):
        return None
    return library


def _set_by_user() -> bool:
    """Tell whether the environment decides about the allocator: its settings, or another one preloaded."""
    names = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_")
    if any(name in os.environ for name in names) or "malloc" in os.environ.get("LD_PRELOAD", ""):
        return True
    return "glibc.malloc." in os.environ.get("GLIBC_TUNABLES", "")


@contextmanager
def keep_freed_memory() -> Iterator[bool]:
    """Keep memory freed within the block for later allocations; return it to the system at the end.

    Safe to nest and to use from several threads: the last one to leave returns it. Settings of the allocator in the
    environment (``MALLOC_TRIM_THRESHOLD_`` ..., ``GLIBC_TUNABLES``, a preloaded allocator) are not changed.

    Yields:
        Whether it is in force: False where the C library is not glibc or the environment decides.
    """
    global _users
    library = None if _set_by_user() else _glibc()
    if library is None:
        yield False
        return
    with _lock:
        _users += 1
        if not library.mallopt(_MMAP_THRESHOLD, _KEPT_BYTES):
            library.mallopt(_MMAP_THRESHOLD, _OLD_LIMIT)
        library.mallopt(_TRIM_THRESHOLD, _NEVER_TRIM)
    try:
        yield True
    finally:
        with _lock:
            _users -= 1
            if not _users:
                library.mallopt(_MMAP_THRESHOLD, _USUAL_MMAP)
                library.mallopt(_TRIM_THRESHOLD, _USUAL_TRIM)
                library.malloc_trim(0)


@contextmanager
def fast_cpu_training(model: SentenceTransformer) -> Iterator[None]:
    """Speed up training on a CPU within the block; on other devices nothing changes."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with ExitStack() as stack:
        if model.device.type == "cpu":
            stack.enter_context(keep_freed_memory())
            if (model.max_seq_length or _PLAIN_ATTENTION_TOKENS + 1) <= _PLAIN_ATTENTION_TOKENS:
                stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        yield
