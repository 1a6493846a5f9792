"""Removes what is old from the log: searches with their outcomes, turns, and memories that were deleted long ago.

The log grows with every search, while training learns from the latest. Live memories stay, because they are what is
searched. This is housekeeping and not a purge: it keeps recent texts of everyone, and does not clear the database's
files of what was in them.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import sqlalchemy as sa

from hins_memory.database.engine import database_errors, reading
from hins_memory.database.tables import answers, feedback, memories, retrieval_results, retrievals, turns
from hins_memory.errors import LogError
from hins_memory.log.purge import keep_schedule
from hins_memory.log.writer import repeated
from hins_memory.types import FOLLOWUP_SECONDS, SYNTHETIC_TENANT, Progress, now

__all__ = ["FOLLOWUP_SECONDS", "Keep", "RetainReport", "retain"]

#: ``outcomes`` keeps searches that have one; "" keeps none.
Keep = Literal["", "outcomes"]
_DAY = 86_400.0
# Rows looked at in one statement, and rows removed in one transaction: a search brings its results along.
_WINDOW, _BATCH = 5000, 500
_TABLES = (retrievals, retrieval_results, answers, feedback, turns, memories)
_OF_SEARCH = (retrieval_results, answers, feedback)


@dataclass(frozen=True, slots=True)
class RetainReport:
    """What a retention removed, or would.

    Attributes:
        before: what is older is old, in seconds since the Unix epoch (UTC).
        removed: the number of rows by table.
        dry_run: whether nothing was removed.
    """

    before: float
    removed: dict[str, int]
    dry_run: bool

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-able values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Rule:
    """What goes: rows of a table before a time."""

    before: float
    keep: Keep

    def goes(self, table: sa.Table) -> sa.ColumnElement[bool]:
        if table is retrievals:
            return sa.and_(_captured(retrievals), sa.not_(self._stays(retrievals)))
        if table is turns:
            return sa.and_(_captured(turns), turns.c.time < self.before, *self._no_search_before_turn())
        return sa.and_(_captured(memories), memories.c.deleted_at < self.before, sa.not_(self._returned()))

    def _stays(self, search: sa.FromClause) -> sa.ColumnElement[bool]:
        """A search is as old as its latest outcome; one that follows a kept search soon belongs to it."""
        if not self.keep:
            return sa.or_(search.c.time >= self.before, _has_outcome(search, self.before))
        first = retrievals.alias()
        followed = sa.exists().where(*_soon_before(first, search), _has_outcome(first))
        return sa.or_(search.c.time >= self.before, _has_outcome(search), followed)

    def _no_search_before_turn(self) -> Iterator[sa.ColumnElement[bool]]:
        if self.keep:
            search = retrievals.alias()
            yield sa.not_(sa.exists().where(*_soon_before(search, turns), self._stays(search)))

    def _returned(self) -> sa.ColumnElement[bool]:
        # By its row, a later purge of the person finds the memory in other people's searches, so it has to stay too.
        search, result = retrievals.alias(), retrieval_results.alias()
        is_of = (result.c.memory_id == memories.c.id, search.c.id == result.c.retrieval_id)
        return sa.exists().where(*is_of, self._stays(search))


def _captured(table: sa.Table) -> sa.ColumnElement[bool]:
    """Rows of real traffic; what was synthesised has made-up times."""
    return sa.and_(table.c.tenant != SYNTHETIC_TENANT, table.c.tenant.not_like(f"{SYNTHETIC_TENANT}/%"))


def _has_outcome(search: sa.FromClause, since: float | None = None) -> sa.ColumnElement[bool]:
    found = []
    for table in (answers, feedback):
        outcome = table.alias()
        late = () if since is None else (outcome.c.time >= since,)
        found.append(sa.exists().where(outcome.c.retrieval_id == search.c.id, *late))
    return sa.or_(*found)


def _soon_before(search: sa.FromClause, event: sa.FromClause) -> tuple[sa.ColumnElement[bool], ...]:
    begin = event.c.time - FOLLOWUP_SECONDS
    return search.c.owner == event.c.owner, search.c.time >= begin, search.c.time <= event.c.time


def retain(
    engine: sa.Engine, days: float, keep: Keep = "", *, dry_run: bool = False, progress: Progress | None = None
) -> RetainReport:
    """Remove what is older than some days, a few rows a transaction, so that writers are never held up for long.

    A search goes with its results and outcomes, once all of them are old. A turn goes by its own time, a deleted memory
    by that of its deletion, unless a search that stays returned it. Live memories stay, and so does everything that
    was synthesised. What was killed goes on when it is called again; two calls at once remove each row once.

    Args:
        engine: the project's database.
        days: how old is old.
        keep: ``outcomes`` keeps searches that have an outcome, however old, with the searches and turns that
            followed them within `FOLLOWUP_SECONDS`: what training learns from.
        dry_run: count only.
        progress: told after each part of a table that was looked through.

    Raises:
        LogError: `days` is not above 0, or the database cannot be read or written.
    """
    if not days > 0:
        raise LogError(f"{days:g} days would remove everything.", "Keep a number of days above 0.")
    rule = _Rule(now() - days * _DAY, keep)
    removed: Counter[str] = Counter({table.name: 0 for table in _TABLES})
    # Searches first: which turns and deleted memories may go depends on those that stay.
    for table in (retrievals, turns, memories):
        for seqs in _old(engine, table, rule, progress):
            if dry_run:
                removed += _count(engine, table, seqs)
                continue
            began = time.monotonic()
            removed += repeated(engine, lambda connection: _remove(connection, table, seqs, rule))  # noqa: B023
            if engine.dialect.name == "sqlite":
                # One process writes at a time, and SQLite keeps no queue of those that wait: without a pause the others
                # would never get their turn.
                time.sleep(time.monotonic() - began)
    return RetainReport(rule.before, {table.name: removed[table.name] for table in _TABLES}, dry_run)


def _old(engine: sa.Engine, table: sa.Table, rule: _Rule, progress: Progress | None) -> Iterator[list[int]]:
    """Yield the numbers of rows that may go, in their order, each part read in a short snapshot of its own."""
    seq, after = table.c.seq, 0
    with database_errors(engine.url), reading(engine).connect() as connection:
        # What is written from now on is not old.
        last = connection.execute(sa.select(sa.func.max(seq))).scalar() or 0
    while after < last:
        with database_errors(engine.url), reading(engine).connect() as connection:
            window = sa.select(seq).where(seq > after, seq <= last).order_by(seq).limit(_WINDOW).subquery()
            end = connection.execute(sa.select(sa.func.max(window.c.seq))).scalar() or last
            query = sa.select(seq).where(seq > after, seq <= end, rule.goes(table)).order_by(seq)
            found = list(connection.execute(query).scalars())
        for start in range(0, len(found), _BATCH):
            yield found[start : start + _BATCH]
        after = end
        if progress:
            progress(f"retain: {table.name}", after, last)


def _remove(connection: sa.Connection, table: sa.Table, seqs: Sequence[int], rule: _Rule) -> Counter[str]:
    if connection.dialect.name == "postgresql":
        # An outcome that another process writes holds its search; once the row is locked, no more can come, and the
        # next statement sees those that did. The order keeps two retentions from waiting for one another.
        lock = sa.select(table.c.seq).where(table.c.seq.in_(seqs)).order_by(table.c.seq).with_for_update()
        connection.execute(lock)
    removed: Counter[str] = Counter()
    goes = sa.and_(table.c.seq.in_(seqs), rule.goes(table))
    if table is retrievals:
        ids = list(connection.execute(sa.select(retrievals.c.id).where(goes)).scalars())
        goes = retrievals.c.id.in_(ids)
        for part in _OF_SEARCH:
            removed[part.name] += connection.execute(sa.delete(part).where(part.c.retrieval_id.in_(ids))).rowcount
        if removed[answers.name] or removed[feedback.name]:
            keep_schedule(connection)
    removed[table.name] += connection.execute(sa.delete(table).where(goes)).rowcount
    return removed


def _count(engine: sa.Engine, table: sa.Table, seqs: Sequence[int]) -> Counter[str]:
    counted = Counter({table.name: len(seqs)})
    if table is retrievals:
        with database_errors(engine.url), reading(engine).connect() as connection:
            for part in _OF_SEARCH:
                of_these = sa.select(retrievals.c.id).where(retrievals.c.seq.in_(seqs))
                query = sa.select(sa.func.count()).select_from(part).where(part.c.retrieval_id.in_(of_these))
                counted[part.name] += connection.execute(query).scalar_one()
    return counted
