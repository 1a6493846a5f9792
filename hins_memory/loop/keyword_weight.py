"""The keyword weight of a new version: fitted on the agent's own search, where it takes one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hins_memory.encoders.encoder import Encoder
from hins_memory.evaluation.keyword_weight import fit_keyword_weight
from hins_memory.loop.split import search_replay
from hins_memory.registry.loader import shared_encoder

if TYPE_CHECKING:
    from hins_memory.plugins.protocols import Agent
    from hins_memory.training import RunContent

__all__ = ["new_keyword_weight", "weighs_keywords"]


def weighs_keywords(agent: Agent | None) -> bool:
    """Return whether a version may say how much keywords count in an agent's search."""
    replay = search_replay(agent)
    return replay is not None and replay.takes_weight


def new_keyword_weight(agent: Agent | None, content: RunContent, folder: Path) -> float | None:
    """Return how much keywords are to count beside the cosines of a new encoder.

    It is fitted on queries that were neither trained on nor held out for the gate. Without an agent whose search takes
    a weight, or with too few queries, it is that of the encoder that training began with.

    Args:
        agent: the live agent.
        content: what the encoder was trained on.
        folder: the encoder.
    """
    replay = search_replay(agent)
    sets = content.auxiliary.early_stopping_sets
    fitted = None
    if replay is not None and replay.takes_weight and sets:
        fitted = fit_keyword_weight(Encoder.load(folder), replay, sets)
    return shared_encoder(content.base).keyword_weight if fitted is None else fitted
