"""What the pipeline reports: where a project stands, and what a round did."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hins_memory.evaluation.gate import GateReport
    from hins_memory.log.losses import CaptureLoss
    from hins_memory.log.reader import LogCounts
    from hins_memory.registry.registry import ScopedVersion
    from hins_memory.swapping import SwapReport

__all__ = ["RunReport", "Status"]


@dataclass(frozen=True, slots=True)
class Status:
    """Where a project stands.

    `current` is the id of the current version, "" while nothing was promoted; `unreadable` maps what is in the folder
    of versions and cannot be read as one to the reason; `losses` is what captures of any process lost within a month;
    `settings_file` is the `hins.toml` that was read, "" if there is none; `scoped` says which scopes have encoders of
    their own.
    """

    project: str
    root: str
    database: str
    log: LogCounts
    versions: tuple[str, ...]
    current: str
    unreadable: dict[str, str] = field(default_factory=dict)
    losses: tuple[CaptureLoss, ...] = ()
    settings_file: str = ""
    scoped: tuple[ScopedVersion, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the status as JSON-able values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class RunReport:
    """What one round of the loop did; `swap` is None when the gate refused the candidate."""

    mine: dict[str, Any]
    version: str
    gate: GateReport
    swap: SwapReport | None

    @property
    def swapped(self) -> bool:
        """Whether the agent serves with the new version now."""
        return self.swap is not None

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-able values."""
        return {
            "mine": self.mine,
            "version": self.version,
            "gate": self.gate.to_dict(),
            "swap": self.swap.to_dict() if self.swap else None,
            "swapped": self.swapped,
        }
