"""Makes the search indexes of Mem0's Redis stores hold the rows of their own collections only."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from hins_memory.errors import AgentError
from hins_memory.sdk.retry import with_retries

__all__ = ["prepare_redis", "release_redis"]

_INDEXING_SECONDS = 600


def prepare_redis(raw: Any) -> None:
    """Make the search index of one of Mem0's Redis stores cover the rows of its collection and no others.

    Mem0 gives it every key that begins with the collection's name: those of the entities and of a shadow, too, which
    searches would then find among the memories.

    Raises:
        AgentError: Redis does not finish indexing the rows that are there.
    """
    _narrow(raw)
    raw.reset = partial(_reset, raw)


def release_redis(raw: Any) -> None:
    """Restore the method of a store that `prepare_redis` replaced."""
    vars(raw).pop("reset", None)


def _reset(raw: Any) -> None:
    type(raw).reset(raw)
    _narrow(raw)


def _narrow(raw: Any) -> None:
    settings = raw.index.schema.index
    prefix = settings.prefix
    try:
        # Only for the definition of the index: keys are made of the prefix without the colon.
        settings.prefix = f"{prefix}:"
        with_retries(partial(raw.index.create, overwrite=True))
    finally:
        settings.prefix = prefix
    until = time.monotonic() + _INDEXING_SECONDS
    while int(raw.index.info().get("indexing", 0)):
        if time.monotonic() > until:
            raise AgentError(f"Redis still indexes {raw.index.name}.", "Open it again when FT.INFO says indexing 0.")
        time.sleep(0.05)
