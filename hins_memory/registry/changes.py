"""Which records of an agent were written since its last swap: a rollback has to copy them.

An agent notes the ids before it writes, so that after a kill in between no written record is missing.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from hins_memory.database.tables import agent_indexes, index_changes

__all__ = ["EVERYTHING", "drop_changes", "note_changes", "read_changes"]

#: Means all ids of all kinds: it is not known what changed.
EVERYTHING = "*"
_BATCH = 500


def note_changes(connection: sa.Connection, agent_key: str, kind: str, ids: Sequence[str]) -> bool:
    """Note ids while there is an index to roll back to, beside the one that serves; return whether there is."""
    rows = connection.execute(sa.select(agent_indexes).where(agent_indexes.c.agent_key == agent_key)).all()
    serving = {row.suffix for row in rows if row.state == "live"}
    # A rollback that was interrupted has left it as a shadow. There is no way back to an agent's own encoder ("").
    kept = [row for row in rows if row.state in ("previous", "shadow") and row.version]
    if all(row.suffix in serving for row in kept):
        return False
    for start in range(0, len(ids), _BATCH):
        batch = list(dict.fromkeys(ids[start : start + _BATCH]))
        here = (index_changes.c.agent_key == agent_key) & (index_changes.c.kind == kind)
        known = set(
            connection.execute(
                sa.select(index_changes.c.record).where(here, index_changes.c.record.in_(batch))
            ).scalars()
        )
        new = [{"agent_key": agent_key, "kind": kind, "record": id_} for id_ in batch if id_ not in known]
        if new:
            connection.execute(sa.insert(index_changes), new)
    return True


def read_changes(connection: sa.Connection, agent_key: str) -> dict[str, list[str]] | None:
    """Return the ids that were noted by kind, or None when that is not known."""
    rows = connection.execute(
        sa.select(index_changes.c.kind, index_changes.c.record).where(index_changes.c.agent_key == agent_key)
    ).all()
    found: dict[str, list[str]] = {}
    for row in rows:
        found.setdefault(row.kind, []).append(row.record)
    return None if EVERYTHING in found else found


def drop_changes(connection: sa.Connection, agent_key: str, *, unknown: bool = False) -> None:
    """Begin anew: both indexes hold the same now, or (`unknown`) it is not known how they differ."""
    connection.execute(sa.delete(index_changes).where(index_changes.c.agent_key == agent_key))
    if unknown:
        row = {"agent_key": agent_key, "kind": EVERYTHING, "record": EVERYTHING}
        connection.execute(sa.insert(index_changes).values(**row))
