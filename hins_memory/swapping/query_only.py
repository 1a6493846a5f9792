"""The swap between encoders that share their documents' vectors: only the queries change, and no vector is touched."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hins_memory.errors import SwapError
from hins_memory.plugins.protocols import sample_of
from hins_memory.swapping.sync import compare_vectors

if TYPE_CHECKING:
    from hins_memory.encoders.encoder import Encoder
    from hins_memory.plugins.protocols import Agent, Index
    from hins_memory.registry.registry import IndexRecord, Registry

__all__ = ["check_shared_vectors", "flip_queries", "sample_vectors", "shares_vectors", "suffixes_in_use"]


#: How many vectors of an index are compared.
_SAMPLE = 16


def shares_vectors(live: IndexRecord | None, version: str, registry: Registry) -> bool:
    """Return whether a version makes the same vectors of documents as the one that serves an agent."""
    if live is None or not live.version:
        return False
    return registry.document_space(live.version) == registry.document_space(version)


def check_shared_vectors(agent: Agent, encoder: Encoder) -> None:
    """Check on a sample that an encoder makes the vectors that serve; its manifest alone is not trusted.

    Some records of each index are compared. A few that differ may be damaged, or be written just now.

    Raises:
        SwapError: most of them differ.
    """
    for index in agent.live_indexes():
        checked, wrong = sample_vectors(index, encoder)
        if 2 * wrong > checked:
            raise SwapError(
                f"{encoder.version} is described as making the vectors of {index.name}, but {wrong} of {checked} "
                "sampled ones are others.",
                "Its manifest (document_space) is wrong: do not use this version; train one here.",
            )


def sample_vectors(index: Index, encoder: Encoder) -> tuple[int, int]:
    """Compare some stored vectors of an index with what an encoder makes of their texts.

    Returns:
        How many were compared, 0 if the store returns none; and how many of them are others.
    """
    sample = sample_of(index, _SAMPLE)
    return compare_vectors(sample, index.vectors([record.id for record in sample]), encoder)


def flip_queries(agent: Agent, version: str, suffix: str, registry: Registry) -> float:
    """Make an agent embed queries with another version over the indexes that serve; return how many seconds it waited.

    Writes go to the same indexes before and after, so that a kill at any moment loses nothing: a restart opens what
    is recorded. The agent comes first, because it may find that it cannot load the version.

    Raises:
        Exception: what the agent or the registry raised; then the agent serves as before.
    """
    before = agent.encoder_version
    # The shadow of an unfinished swap is not updated any more.
    agent.stop_dual_write()
    seconds = agent.switch_to(version, suffix)
    try:
        registry.flip_queries(agent.store_id, version)
    except BaseException:
        agent.switch_to(before, suffix)
        raise
    if agent.encoder_version != version:
        # It refreshed from the registry between the switch and the record, and switched back.
        seconds += agent.switch_to(version, suffix)
    return seconds


def suffixes_in_use(agent_key: str, registry: Registry) -> set[str]:
    """Return the suffixes of the collections of all generations that are not retired."""
    return {record.suffix for record in registry.generations(agent_key) if record.state != "retired"}
