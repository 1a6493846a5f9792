"""Removes a person from the log: the rows, results in other people's searches, and copies in the database's files."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from hins_memory.common.chunks import chunks_of
from hins_memory.database.engine import database_errors, reading
from hins_memory.database.tables import (
    answers,
    feedback,
    leases,
    memories,
    retrieval_results,
    retrievals,
    rounds,
    turns,
)
from hins_memory.errors import LogError
from hins_memory.log import rows
from hins_memory.types import SYNTHETIC_TENANT, Scope, synthetic_tenant

__all__ = [
    "ERASE_SECONDS",
    "PurgedError",
    "PurgedRows",
    "erase_traces",
    "keep_schedule",
    "purge_count",
    "purge_rows",
    "tenants_of",
]

#: How long a purge waits for other processes to let go of the database's files.
ERASE_SECONDS = 30.0
_OWNED = (turns, memories, retrievals)
_TABLES = (answers, feedback, retrieval_results, retrievals, memories, turns)
#: The row of the table of leases whose token counts the purges; all other names there are digests.
_COUNTER = "purges"
_LOOKUP = 500
# If an agent searches several times in one turn, its answer is recorded once for each search, within this time.
_SAME_ANSWER_SECONDS = 1.0
# A shorter answer, e.g. "I don't know.", may be given to two people in the same second.
_SAME_ANSWER_CHARS = 24


class PurgedError(LogError):
    """The log was purged while a file or a version was made from it, which could still hold the removed texts."""

    def __init__(self, what: str) -> None:
        super().__init__(f"The log was purged meanwhile, so {what} was not kept.", "Run the same command again.")


@dataclass(frozen=True, slots=True)
class PurgedRows:
    """What was removed from the tables.

    Attributes:
        removed: the number of rows by table.
        conversations: (owner, conversation) of the turns and memories that were removed.
        unowned: turns and memories that were recorded without a user; they stay.
    """

    removed: dict[str, int]
    conversations: tuple[tuple[Scope, str], ...]
    unowned: int


@dataclass(frozen=True, slots=True)
class _Person:
    """One user of one tenant ("" for none), with what was synthesised from their conversations."""

    user: str
    tenant: str

    def owns(self, table: sa.FromClause) -> sa.ColumnElement[bool]:
        # Before 0.2 all synthetic conversations had one tenant, so users of equal names cannot be told apart there.
        tenants = (self.tenant, synthetic_tenant(self.tenant), SYNTHETIC_TENANT)
        return sa.and_(table.c.user == self.user, table.c.tenant.in_(tenants))


def tenants_of(engine: sa.Engine, user: str) -> list[str]:
    """Return the tenants in which the log holds anything of a user, "" for none. In each it is another person.

    Raises:
        LogError: the database cannot be read.
    """
    with database_errors(engine.url), reading(engine).connect() as connection:
        return _tenants(connection, rows.clean(user))


def _tenants(connection: sa.Connection, user: str) -> list[str]:
    found = set(
        connection.execute(sa.union(*(sa.select(table.c.tenant).where(table.c.user == user) for table in _OWNED)))
        .scalars()
        .all()
    )
    origins = {tenant.removeprefix(f"{SYNTHETIC_TENANT}/") for tenant in found - {SYNTHETIC_TENANT}}
    return sorted(origins) or sorted(found)


def purge_count(engine: sa.Engine) -> int:
    """Return how many purges removed something; if it changes, rows that were read before may be removed by now.

    Raises:
        LogError: the database cannot be read.
    """
    with database_errors(engine.url), reading(engine).connect() as connection:
        token = connection.execute(sa.select(leases.c.token).where(leases.c.name == _COUNTER)).scalar()
    return int(token or 0)


def purge_rows(engine: sa.Engine, user: str, tenant: str | None = None) -> PurgedRows:
    """Remove a person's rows in one transaction; `erase_traces` then clears the database's files.

    What goes: everything recorded under the user; the person's memories in what other people's searches returned,
    with the answers that were given after those searches; and whole searches without a user that returned any of
    those memories, because it is not known who asked.

    Args:
        engine: the project's database.
        user: whose records.
        tenant: only those of this tenant, "" for records without one; None means every tenant.

    Raises:
        LogError: `user` is empty, or the database cannot be written.
    """
    name = rows.clean(user)
    if not name:
        raise LogError("No user was named.", "Name the user whose records shall be removed.")
    with database_errors(engine.url), engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            # SQLite holds the write lock from the start of a transaction. The order is that of writing a batch.
            order = (turns, memories, retrievals, retrieval_results, answers, feedback, leases)
            names = ", ".join(table.name for table in order)
            connection.execute(sa.text(f"LOCK TABLE {names} IN SHARE ROW EXCLUSIVE MODE"))
        tenants = _tenants(connection, name) if tenant is None else [rows.clean(tenant)]
        removed: Counter[str] = Counter({table.name: 0 for table in _TABLES})
        conversations: set[tuple[Scope, str]] = set()
        for person_tenant in tenants:
            person = _Person(name, person_tenant)
            conversations |= _conversations(connection, person)
            removed += _purge(connection, person)
        if removed.total():
            _count_purge(connection)
            keep_schedule(connection)
        unowned = sum(
            connection.execute(sa.select(sa.func.count()).select_from(table).where(table.c.user == "")).scalar_one()
            for table in (turns, memories)
        )
    return PurgedRows({table.name: removed[table.name] for table in _TABLES}, tuple(sorted(conversations)), unowned)


def _conversations(connection: sa.Connection, person: _Person) -> set[tuple[Scope, str]]:
    found = sa.union(
        *(sa.select(table.c.owner, table.c.conversation).where(person.owns(table)) for table in (turns, memories))
    )
    return {(Scope.from_key(row.owner), row.conversation) for row in connection.execute(found)}


def _purge(connection: sa.Connection, person: _Person) -> Counter[str]:
    own_searches = sa.select(retrievals.c.id).where(person.owns(retrievals))
    own_ids = _memory_ids(person)
    foreign_ids = sa.select(memories.c.id).where(sa.not_(person.owns(memories)))
    returned = _returned_to_others(connection, person, own_ids)
    anonymous = {row.retrieval_id for row in returned if not row.user}
    named = {row.retrieval_id for row in returned} - anonymous
    removed: Counter[str] = Counter()

    def remove(table: sa.Table, condition: sa.ColumnElement[bool]) -> None:
        removed[table.name] += connection.execute(sa.delete(table).where(condition)).rowcount

    for repeated in chunks_of(sorted(_repeated_answers(connection, person, anonymous | named)), _LOOKUP):
        remove(answers, answers.c.id.in_(repeated))
    for chunk in chunks_of(sorted(anonymous | named), _LOOKUP):
        remove(answers, answers.c.retrieval_id.in_(chunk))
    for row in returned:
        if row.retrieval_id in named:
            pair = (row.retrieval_id, row.memory_id)
            remove(feedback, sa.and_(feedback.c.retrieval_id == pair[0], feedback.c.memory_id == pair[1]))
            key = sa.and_(retrieval_results.c.retrieval_id == pair[0], retrieval_results.c.rank == row.rank)
            remove(retrieval_results, key)
    for chunk in chunks_of(sorted(anonymous), _LOOKUP):
        for table in (feedback, retrieval_results):
            remove(table, table.c.retrieval_id.in_(chunk))
        remove(retrievals, retrievals.c.id.in_(chunk))
    remove(answers, answers.c.retrieval_id.in_(own_searches))
    only_theirs = sa.and_(feedback.c.memory_id.in_(own_ids), feedback.c.memory_id.not_in(foreign_ids))
    remove(feedback, sa.or_(feedback.c.retrieval_id.in_(own_searches), only_theirs))
    remove(retrieval_results, retrieval_results.c.retrieval_id.in_(own_searches))
    for table in (retrievals, memories, turns):
        remove(table, person.owns(table))
    return removed


def _memory_ids(person: _Person) -> sa.CompoundSelect[Any]:
    """Return the ids of the person's memories: those recorded, and those that only the person's searches returned."""
    of_results = sa.select(retrieval_results.c.memory_id).join(
        retrievals, retrievals.c.id == retrieval_results.c.retrieval_id
    )
    foreign = sa.union(
        sa.select(memories.c.id).where(sa.not_(person.owns(memories))),
        of_results.where(sa.not_(person.owns(retrievals)), retrievals.c.user != ""),
    )
    seen = of_results.where(person.owns(retrievals), retrieval_results.c.memory_id.not_in(foreign))
    return sa.union(sa.select(memories.c.id).where(person.owns(memories)), seen)


def _returned_to_others(
    connection: sa.Connection, person: _Person, own_ids: Any
) -> Sequence[sa.Row[Any, Any, Any, Any]]:
    """Return (retrieval_id, rank, memory_id, user) of the person's memories in the results of other searches.

    A memory's id is unique per owner only. Where another user has a memory of the same id, a result is that user's if
    it was returned to its owner, or has its text. A search without a user also returned the person's memory where the
    text is one that only the person has.
    """
    foreign, own = memories.alias("foreign_memories"), memories.alias("own_memories")
    result, asked = retrieval_results.c, retrievals.c
    their_memory = sa.exists().where(
        foreign.c.id == result.memory_id,
        sa.not_(person.owns(foreign)),
        sa.or_(
            sa.and_(foreign.c.user == asked.user, foreign.c.tenant == asked.tenant, asked.user != ""),
            foreign.c.text == result.text,
        ),
    )
    own_text = sa.and_(
        asked.user == "",
        result.text != "",
        result.text.in_(sa.select(own.c.text).where(person.owns(own))),
        result.text.not_in(sa.select(foreign.c.text).where(sa.not_(person.owns(foreign)))),
    )
    statement = (
        sa.select(result.retrieval_id, result.rank, result.memory_id, asked.user)
        .join(retrievals, asked.id == result.retrieval_id)
        .where(
            sa.not_(person.owns(retrievals)),
            # A search of another tenant does not see the person's memories; one without a tenant may.
            asked.tenant.in_(("", person.tenant)),
            sa.or_(sa.and_(result.memory_id.in_(own_ids), sa.not_(their_memory)), own_text),
        )
    )
    return connection.execute(statement).all()


def _repeated_answers(connection: sa.Connection, person: _Person, touched: set[str]) -> list[str]:
    """Return the ids of equal answers to other searches: an agent may search several times in one turn."""
    times: defaultdict[str, list[float]] = defaultdict(list)
    others = []
    statement = sa.select(
        answers.c.id, answers.c.retrieval_id, answers.c.text, answers.c.time, retrievals.c.user,
        person.owns(retrievals).label("own"),
    ).join(retrievals, retrievals.c.id == answers.c.retrieval_id)  # fmt: skip
    for row in connection.execute(statement):
        if row.own or row.retrieval_id in touched:
            times[row.text].append(row.time)
        else:
            others.append((row.id, row.text, row.time, bool(row.user)))
    return [
        id
        for id, text, when, is_named in others
        if (not is_named or len(text) >= _SAME_ANSWER_CHARS)
        and any(abs(when - other) <= _SAME_ANSWER_SECONDS for other in times.get(text, ()))
    ]


def _count_purge(connection: sa.Connection) -> None:
    is_counter = leases.c.name == _COUNTER
    if not connection.execute(sa.update(leases).where(is_counter).values(token=leases.c.token + 1)).rowcount:
        connection.execute(sa.insert(leases).values(name=_COUNTER, token=1, acquired=0.0, expires=0.0))


def keep_schedule(connection: sa.Connection) -> None:
    """Make outcomes that are written from now on count as new, whatever outcomes were removed before."""
    for table in (answers, feedback):
        # SQLite uses the numbers of removed last rows again: without this, the next outcomes would not count as new.
        last = sa.select(sa.func.coalesce(sa.func.max(table.c.seq), 0)).scalar_subquery()
        seen = rounds.c[table.name]
        connection.execute(sa.update(rounds).where(seen > last).values({table.name: last}))


def erase_traces(engine: sa.Engine, wait: float = ERASE_SECONDS) -> None:
    """Clear removed texts out of a SQLite database's files; on PostgreSQL the server does that by itself.

    `secure_delete` alone is not enough: moving rows between pages leaves copies in the unused parts of pages. So the
    file is rewritten (VACUUM), and the write-ahead log, which holds the old pages, is emptied.

    Args:
        engine: the project's database.
        wait: at most this many seconds, while other processes read or write.

    Raises:
        LogError: the files could not be cleared: they still hold texts of removed rows. Calling again is safe.
    """
    if engine.dialect.name != "sqlite":
        return
    deadline = time.monotonic() + wait
    with database_errors(engine.url), contextlib.closing(engine.raw_connection()) as raw:
        cursor = raw.cursor()
        (timeout,) = cursor.execute("PRAGMA busy_timeout").fetchone()
        try:
            cursor.execute("PRAGMA busy_timeout = 100")
            _repeat(lambda: cursor.execute("VACUUM"), deadline)
            _repeat(lambda: cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0], deadline)
        finally:
            cursor.execute(f"PRAGMA busy_timeout = {int(timeout)}")


def _repeat(step: Any, deadline: float) -> None:
    """Run a step until it neither finds the database locked nor returns 1, which is "busy"."""
    while True:
        try:
            busy = step() == 1
            problem = "another process reads the log"
        except sqlite3.OperationalError as error:
            busy, problem = True, str(error)
            if "locked" not in problem and "busy" not in problem:
                raise _traces_left(problem) from error
        if not busy:
            return
        if time.monotonic() > deadline:
            raise _traces_left(problem)
        time.sleep(0.05)


def _traces_left(problem: str) -> LogError:
    return LogError(
        f"The rows are removed, but copies of their texts are still in the log's files (log.db, -wal): {problem}.",
        "End what reads or writes the log, free disk space if it is full, and run the purge again: it finishes this.",
    )
