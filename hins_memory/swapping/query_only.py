"""The swap between encoders that share their documents' vectors: only the queries change, and no vector is touched."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hins_memory.errors import SwapError
from hins_memory.swapping.sync import compare_vectors

if TYPE_CHECKING:
    from hins_memory.encoders.encoder import Encoder
    from hins_memory.plugins.protocols import Agent
    from hins_memory.registry.registry import IndexRecord, Registry

__all__ = ["check_shared_vectors", "flip_queries", "shares_vectors", "suffixes_in_use"]


#: Records of an index whose vectors are looked at.
_SAMPLE = 16


def shares_vectors(live: IndexRecord | None, version: str, registry: Registry) -> bool:
    """Return whether the vectors that serve an agent are those that a version makes of documents."""
    if live is None or not live.version:
        return False
    return registry.document_space(live.version) == registry.document_space(version)


def check_shared_vectors(agent: Agent, encoder: Encoder) -> None:
    """See that the vectors that serve are those that an encoder makes of documents; its manifest may claim anything.

    Some records of each index are looked at. Single ones that differ are damage or writes that are on their way.

    Raises:
        SwapError: most of them are other vectors.
    """
    for index in agent.live_indexes():
        sample = next(index.pages(_SAMPLE), [])
        checked, wrong = compare_vectors(sample, index.vectors([record.id for record in sample]), encoder)
        if 2 * wrong > checked:
            raise SwapError(
                f"{encoder.version} is described as making the vectors of {index.name}, but {wrong} of {checked} "
                "sampled ones are others.",
                "Its manifest (document_space) is wrong: do not use this version; train one here.",
            )


def flip_queries(agent: Agent, version: str, suffix: str, registry: Registry) -> float:
    """Make an agent embed queries with another version over the indexes that serve; return for how long it waited.

    Writes go to the same indexes before and after, so that a kill at any moment loses nothing: a restart opens what
    is recorded. The agent comes first, because it may find that it cannot load the version.

    Raises:
        Exception: what the agent or the registry raised; then the agent serves as before.
    """
    before = agent.encoder_version
    # What an unfinished swap has built follows the live index no further.
    agent.stop_dual_write()
    seconds = agent.switch_to(version, suffix)
    try:
        registry.flip_queries(agent.store_id, version)
    except BaseException:
        agent.switch_to(before, suffix)
        raise
    if agent.encoder_version != version:
        # It looked at the registry between the two lines above.
        seconds += agent.switch_to(version, suffix)
    return seconds


def suffixes_in_use(agent_key: str, registry: Registry) -> set[str]:
    """Return the suffixes of the collections that a generation which is not retired needs."""
    return {record.suffix for record in registry.generations(agent_key) if record.state != "retired"}
