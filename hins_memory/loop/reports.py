"""What the pipeline reports: where a project stands, and what a round did."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from hins_memory.log.losses import read_losses
from hins_memory.log.reader import LogReader
from hins_memory.loop.quality import Quality, read_quality

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from hins_memory.config import Settings
    from hins_memory.evaluation.gate import GateReport
    from hins_memory.log.losses import CaptureLoss
    from hins_memory.log.reader import LogCounts
    from hins_memory.loop.deep import DeepAdvice
    from hins_memory.registry.registry import Registry, ScopedVersion
    from hins_memory.swapping import SwapReport

__all__ = ["RunReport", "Status", "read_status"]


@dataclass(frozen=True, slots=True)
class Status:
    """Where a project stands.

    `current` is the id of the current version, "" while nothing was promoted; `unreadable` maps what is in the folder
    of versions and cannot be read as one to the reason; `losses` is what captures of any process lost within a month;
    `settings_file` is the `hins.toml` that was read, "" if there is none; `scoped` says which scopes have encoders of
    their own; `quality` is what the latest searches' outcomes said when they were judged last, None if they never were.
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
    quality: Quality | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the status as JSON-able values."""
        return {**asdict(self), "quality": self.quality and self.quality.to_dict()}


def read_status(settings: Settings, engine: Engine, registry: Registry) -> Status:
    """Return what a project's log and registry hold."""
    listing = registry.listing()
    return Status(
        project=settings.project,
        root=str(settings.root),
        database=engine.url.render_as_string(hide_password=True),
        log=LogReader(engine).counts(),
        versions=tuple(version.id for version in listing.versions),
        current=registry.current_id(),
        unreadable=listing.unreadable,
        losses=read_losses(engine),
        scoped=tuple(registry.scoped_versions()),
        settings_file=str(settings.file().path or ""),
        quality=read_quality(settings.root),
    )


@dataclass(frozen=True, slots=True)
class RunReport:
    """What one round of the loop did.

    Attributes:
        mine: what the miner found.
        version: the version that was trained.
        gate: the gate's verdict on it.
        swap: what the swap did; None when the gate refused.
        advice: whether a deep round is worth it; None where that was not asked.
        deep: the deep round that followed at once, of a version of its own; None when there was none.
        mode: how the version was trained, see `hins_memory.training.TrainSettings`.
    """

    mine: dict[str, Any]
    version: str
    gate: GateReport
    swap: SwapReport | None
    advice: DeepAdvice | None = None
    deep: RunReport | None = None
    mode: str = ""

    @property
    def swapped(self) -> bool:
        """Whether the agent serves with a new version now."""
        return self.swap is not None or (self.deep is not None and self.deep.swapped)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-able values."""
        return {
            "mine": self.mine,
            "version": self.version,
            "mode": self.mode,
            "gate": self.gate.to_dict(),
            "swap": self.swap.to_dict() if self.swap else None,
            "swapped": self.swapped,
            "advice": self.advice.to_dict() if self.advice else None,
            "deep": self.deep.to_dict() if self.deep else None,
        }
