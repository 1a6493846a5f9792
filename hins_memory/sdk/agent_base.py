"""Default members of an agent, for adapters that use neither `StoreAgent` nor `InPlaceAgent`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hins_memory.plugins.protocols import Ranking

__all__ = ["AgentBase"]


class AgentBase:
    """Defaults of the `Agent` protocol for a store that one process has open at a time."""

    #: the framework's name
    name = ""
    #: the cosine values that the framework hard-codes as thresholds
    score_thresholds: tuple[float, ...] = ()

    @property
    def ranking(self) -> Ranking | None:
        """How the framework ranks, where more counts than the cosines."""
        return None

    @property
    def records_changes(self) -> bool:
        """Whether every write is noted in the registry, so that a rollback need not compare all records."""
        return False

    @property
    def switch_delay_seconds(self) -> float:
        """How long after a flip another process may still use the old index, in seconds; 0 with only one process."""
        return 0.0

    def refresh(self) -> None:
        """Apply what other processes recorded about the store; does nothing if only one process can have it open."""
