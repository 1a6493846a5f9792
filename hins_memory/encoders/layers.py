"""The layers of sentence-transformers, from where the installed version has them."""

from __future__ import annotations

from typing import Any

__all__ = ["layers"]


def layers() -> Any:
    """Return the module that has sentence-transformers' layers: `Dense`, `Normalize`, `Router` and others.

    Version 6 moved them and warns of the old place, and Mem0 makes such warnings visible to users.
    """
    try:
        from sentence_transformers.sentence_transformer import modules
    except ImportError:
        from sentence_transformers import models as modules
    return modules
