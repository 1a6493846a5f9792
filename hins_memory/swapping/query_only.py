"""The swap between encoders that share their documents' vectors: only the queries change, and no vector is touched."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hins_memory.plugins.protocols import Agent
    from hins_memory.registry.registry import IndexRecord, Registry

__all__ = ["flip_queries", "shares_vectors", "suffixes_in_use"]


def shares_vectors(live: IndexRecord | None, version: str, registry: Registry) -> bool:
    """Return whether the vectors that serve an agent are those that a version makes of documents."""
    if live is None or not live.version:
        return False
    return registry.document_space(live.version) == registry.document_space(version)


def flip_queries(agent: Agent, version: str, suffix: str, registry: Registry) -> float:
    """Make an agent embed queries with another version over the indexes that serve; return for how long it waited.

    Writes go to the same indexes before and after, so that a kill at any moment loses nothing: a restart opens what
    is recorded. The agent comes first, because it may find that it cannot load the version.

    Raises:
        Exception: what the agent or the registry raised; then the agent serves as before.
    """
    before = agent.encoder_version
    # What an unfinished swap has built follows the live index no further.
    agent.abandon()
    seconds = agent.flip(version, suffix)
    try:
        registry.flip_queries(agent.key, version)
    except BaseException:
        agent.flip(before, suffix)
        raise
    if agent.encoder_version != version:
        # It looked at the registry between the two lines above.
        seconds += agent.flip(version, suffix)
    return seconds


def suffixes_in_use(agent_key: str, registry: Registry) -> set[str]:
    """Return the suffixes of the collections that a generation which is not retired needs."""
    return {record.suffix for record in registry.generations(agent_key) if record.state != "retired"}
