"""What an agent is unless it says otherwise: for adapters that do not use `StoreAgent`."""

from __future__ import annotations

__all__ = ["AgentBase"]


class AgentBase:
    """Defaults of the `Agent` protocol for a store that one process has open at a time."""

    #: the framework's name
    name = ""
    #: the cosine values that the framework hard-codes as thresholds
    score_thresholds: tuple[float, ...] = ()

    @property
    def records_changes(self) -> bool:
        """Whether every write is noted in the registry, so that a rollback need not compare all records."""
        return False

    @property
    def switch_delay_seconds(self) -> float:
        """How long it may take until no process works any more with what served before a flip; 0 if it is only one."""
        return 0.0

    def refresh(self) -> None:
        """Follow what other processes recorded about the store; nothing to do where only one can have it open."""
