"""What captures lost, kept in the log for `hins status`: counts and processes, no texts."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from hins_memory.database.engine import database_errors, reading
from hins_memory.database.tables import capture_losses

__all__ = ["CaptureLoss", "note_loss", "read_losses"]

#: Losses of this many days are kept and reported.
_DAYS = 30


@dataclass(frozen=True, slots=True)
class CaptureLoss:
    """What one capture lost since its start.

    `dropped` are lost events; among them `pushed_out` (turns, memories and outcomes dropped from a full queue)
    and `redaction` (hooks that failed or hung). `restarts` counts restarts of its writer. `changed` is when that was
    last noted, in seconds since the Unix epoch (UTC).
    """

    id: str
    process: str
    changed: float
    dropped: int
    pushed_out: int
    redaction: int
    restarts: int


def note_loss(engine: sa.Engine, loss: CaptureLoss) -> None:
    """Write what a capture lost, in place of its earlier row; remove rows that are a month old.

    Raises:
        LogError: the database cannot be written.
    """
    row = {name: getattr(loss, name) for name in capture_losses.c.keys()}  # noqa: SIM118 - not a dict
    old = loss.changed - _DAYS * 86400
    with database_errors(engine.url), engine.begin() as connection:
        same_or_old = sa.or_(capture_losses.c.id == loss.id, capture_losses.c.changed < old)
        connection.execute(sa.delete(capture_losses).where(same_or_old))
        connection.execute(sa.insert(capture_losses).values(row))


def read_losses(engine: sa.Engine) -> tuple[CaptureLoss, ...]:
    """Return what captures of any process lost within a month, the latest first.

    Raises:
        LogError: the database cannot be read.
    """
    statement = sa.select(capture_losses).order_by(capture_losses.c.changed.desc(), capture_losses.c.id)
    with database_errors(engine.url), reading(engine).connect() as connection:
        return tuple(CaptureLoss(*row) for row in connection.execute(statement))
