"""The memories of a live agent with their vectors, for mining."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from hins_memory.swapping.query_only import sample_vectors

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hins_memory.encoders.encoder import Encoder
    from hins_memory.mining.owner.stored import StoredMemories
    from hins_memory.plugins.protocols import Agent, Index

__all__ = ["stored_memories"]

logger = logging.getLogger(__name__)


def stored_memories(agent: Agent, encoder: Encoder) -> StoredMemories | None:
    """Return what reads the memories of the indexes that serve; None where they do not hold the encoder's vectors.

    Args:
        agent: the agent.
        encoder: whose vectors are wanted. That it serves is not trusted: a sample of each index is compared.
    """
    if agent.encoder_version != encoder.version:
        return None
    indexes = [index for index in agent.live_indexes() if _holds(index, encoder)]
    if not indexes:
        return None

    def read(ids: Sequence[str]) -> Mapping[str, tuple[str, NDArray[np.float32]]]:
        found: dict[str, tuple[str, NDArray[np.float32]]] = {}
        for index in indexes:
            try:
                # In this order: of a memory that is changed in between, the text is not that of the log any more.
                vectors = index.vectors(ids)
                found |= {one.id: (one.text, vectors[one.id]) for one in index.get(list(vectors)) if one.id in vectors}
            except Exception:
                logger.warning("%s cannot be read; its memories are embedded again", index.name, exc_info=True)
        return found

    return read


def _holds(index: Index, encoder: Encoder) -> bool:
    try:
        checked, wrong = sample_vectors(index, encoder)
    except Exception:
        logger.warning("%s cannot be read; its memories are embedded again", index.name, exc_info=True)
        return False
    return checked > 0 and not wrong
