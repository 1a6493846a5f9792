"""Writes events into the interaction log: one transaction a batch, and writing a batch twice is harmless."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, TypeVar, cast

import sqlalchemy as sa

from hins_memory.common.chunks import chunks_of
from hins_memory.database.engine import database_errors
from hins_memory.database.tables import answers, feedback, memories, retrieval_results, retrievals, turns
from hins_memory.errors import LogError
from hins_memory.log import rows
from hins_memory.log.bulk import put
from hins_memory.log.purge import ERASE_SECONDS, erase_traces, purge_rows
from hins_memory.log.rows import EventRefusedError, Row
from hins_memory.types import Answer, Deletion, Event, Feedback, Memory, Retrieval, Scope, Turn

__all__ = ["EventRefusedError", "LogWriter", "repeated"]

#: Ids looked up in one statement; SQLite allows a limited number of parameters.
_LOOKUP = 500
#: How often a transaction is tried when PostgreSQL ends it because of another one: serialization failure, deadlock, or
#: a search that was removed after its outcome was found to belong to it (a foreign key's violation).
_ATTEMPTS = 5
_CONFLICTS = ("40001", "40P01", "23503")
_T = TypeVar("_T")


class LogWriter:
    """Writes events into a log opened by `open_database`; safe to share between threads and processes.

    Events count in the order in which they are written, not by their times: an agent may give a memory the time of
    a conversation long past.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def write(self, events: Sequence[Event]) -> list[Answer | Feedback]:
        """Write events in one transaction: all of them are on disk when this returns, or none.

        A turn, retrieval or outcome that is there already stays as it is. A memory whose owner and id are known is
        an update: its text is replaced, an empty conversation, speaker, topic or `turn_ids` keeps what was known, and
        one that was deleted is restored as given. Feedback without a retrieval is assigned here, when the order of
        events is known, to the retrieval written last that returned the memory. What names a memory by its id alone
        is refused when memories of two owners have that id: an event must not reach another owner by a guess.

        Returns:
            The outcomes that were left out because their retrieval is not in the log (it may come yet, from another
            process). They are not kept, because without their retrieval it is not known whose they are, and a
            purge could not reach them.

        Raises:
            EventRefusedError: an event can never be written; nothing was.
            LogError: the database cannot be written now (full disk, locked, unreachable); nothing was.
        """
        batch = _Batch(events)
        try:
            return repeated(self._engine, batch.write)
        except LogError as error:
            cause = error.__cause__
            if _is_invalid_value(cause) and not _is_conflict(cause):
                raise EventRefusedError(f"The interaction log refused an event: {_reason(cause)}.") from cause
            raise

    def purge(self, user: str, tenant: str | None = None, wait: float = ERASE_SECONDS) -> dict[str, int]:
        """Remove a person from the log, see `purge_rows`, and every trace from the database's own files.

        `hins_memory.loop.purge.purge_person` also reaches what was made of the log.

        Args:
            user: whose records.
            tenant: only those of this tenant, "" for records without one; None means every tenant.
            wait: at most this many seconds, while other processes read or write the log.

        Returns:
            The number of rows removed from each table.

        Raises:
            LogError: `user` is empty, the database cannot be written, or (the rows are gone then) its files still
                hold traces; the same call again finishes the work.
        """
        removed = purge_rows(self._engine, user, tenant).removed
        erase_traces(self._engine, wait)
        return removed


def repeated(engine: sa.Engine, work: Callable[[sa.Connection], _T]) -> _T:
    """Do some work in one transaction, again if PostgreSQL ends it because of another one; return its result.

    Raises:
        LogError: the database cannot be written, or other transactions came in between every time.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            with database_errors(engine.url), engine.begin() as connection:
                return work(connection)
        except LogError as error:
            if attempt == _ATTEMPTS or not _is_conflict(error.__cause__):
                raise
    raise AssertionError("unreachable")


def _is_invalid_value(error: BaseException | None) -> bool:
    """Return whether a database's error is about the values of a row, so that trying again is pointless."""
    if isinstance(error, sa.exc.DBAPIError):
        return isinstance(error, (sa.exc.DataError, sa.exc.IntegrityError))
    # Raised by the driver: a value that cannot be sent to the database.
    return isinstance(error, sa.exc.StatementError)


def _reason(error: BaseException | None) -> object:
    return getattr(error, "orig", None) or type(error).__name__


def _is_conflict(error: BaseException | None) -> bool:
    """Return whether PostgreSQL ended a transaction because of another one; the same transaction may succeed again."""
    return getattr(getattr(error, "orig", None), "sqlstate", None) in _CONFLICTS


def _deletion(event: Deletion) -> Deletion:
    scope, memory_id = rows.clean_scope(event.scope), rows.clean_id(event.memory_id, "memory id")
    if not memory_id and scope == Scope():
        # An empty part of a scope restricts nothing: every memory of every user would be marked.
        raise EventRefusedError("A Deletion names neither a memory nor a scope.", "Name whose memories were deleted.")
    return Deletion(scope, memory_id, rows.clean_time(event.time))


class _Batch:
    """Events as rows; making it checks every event before the database is touched."""

    def __init__(self, events: Iterable[Event]) -> None:
        self._turns: list[Row] = []
        self._changes: list[Row | Deletion] = []
        self._retrievals: dict[str, tuple[Row, list[Row]]] = {}
        self._outcomes: list[tuple[Answer | Feedback, Row]] = []
        # memory id -> the retrieval of this batch that returned it last, as of the event being read
        self._returned: dict[str, str] = {}
        for event in events:
            try:
                self._add(event)
            except EventRefusedError:
                raise
            except Exception as error:
                # Any error, e.g. of a value's own methods, means that this event can never be a row.
                kind = type(event).__name__
                raise EventRefusedError(f"A {kind} has a field of a wrong type: {error!r}.") from error

    def _add(self, event: Event) -> None:
        if isinstance(event, Turn):
            self._turns.append(rows.turn_row(event))
        elif isinstance(event, Memory):
            self._changes.append(rows.memory_row(event))
        elif isinstance(event, Deletion):
            self._changes.append(_deletion(event))
        elif isinstance(event, Retrieval):
            row, results = rows.retrieval_row(event), rows.result_rows(event)
            self._retrievals.setdefault(row["id"], (row, results))
            self._returned.update((result["memory_id"], row["id"]) for result in results)
        elif isinstance(event, Answer):
            self._outcomes.append((event, rows.answer_row(event)))
        elif isinstance(event, Feedback):
            row = rows.feedback_row(event)
            row["retrieval_id"] = row["retrieval_id"] or self._returned.get(row["memory_id"], "")
            self._outcomes.append((event, row))
        else:
            raise TypeError(f"{type(event).__name__} is not an event")

    def write(self, connection: sa.Connection) -> list[Answer | Feedback]:
        # Before this batch's retrievals are inserted: those recorded after the feedback are not meant by it.
        for event, row in self._outcomes:
            if isinstance(event, Feedback) and not row["retrieval_id"]:
                row["retrieval_id"] = _latest_retrieval(connection, row["memory_id"])
        _insert(connection, turns, self._turns)
        self._apply_changes(connection)
        self._insert_retrievals(connection)
        for event, row in self._outcomes:
            if isinstance(event, Feedback) and not event.retrieval_id and row["retrieval_id"]:
                _check_feedback_has_one_owner(connection, row["memory_id"])
        return self._insert_outcomes(connection)

    def _apply_changes(self, connection: sa.Connection) -> None:
        upsert: list[Row] = []
        for change in self._changes:
            if isinstance(change, Deletion):
                _upsert_memories(connection, upsert)
                upsert = []
                _mark_deleted(connection, change)
            else:
                upsert.append(change)
        _upsert_memories(connection, upsert)

    def _insert_retrievals(self, connection: sa.Connection) -> None:
        # Results only with their own retrieval: an id used twice must not mix two result lists.
        known = _known(connection, self._retrievals)
        fresh = [pair for retrieval_id, pair in self._retrievals.items() if retrieval_id not in known]
        _insert(connection, retrievals, [row for row, _ in fresh])
        _insert(connection, retrieval_results, [result for _, results in fresh for result in results])

    def _insert_outcomes(self, connection: sa.Connection) -> list[Answer | Feedback]:
        known = _known(connection, {row["retrieval_id"] for _, row in self._outcomes})
        written = [(event, row) for event, row in self._outcomes if row["retrieval_id"] in known]
        _insert(connection, answers, [row for event, row in written if isinstance(event, Answer)])
        _insert(connection, feedback, [row for event, row in written if isinstance(event, Feedback)])
        return [event for event, row in self._outcomes if row["retrieval_id"] not in known]


def _insert(connection: sa.Connection, table: sa.Table, values: list[Row]) -> None:
    """Insert rows; those that are there already stay as they are."""
    put(connection, table, values, lambda statement: statement.on_conflict_do_nothing())


def _upsert_memories(connection: sa.Connection, values: list[Row]) -> None:
    put(connection, memories, values, _keep_known, key=("owner", "id"))


def _keep_known(statement: Any) -> Any:
    """Let a memory replace the one that is there, which keeps what the new one does not say."""
    new, old = statement.excluded, memories.c
    revived = old.deleted_at.is_not(None)

    def keep_known(name: str, empty: str = "") -> sa.Case[Any]:
        is_empty = sa.cast(new[name], sa.Text) == empty
        return sa.case((sa.and_(is_empty, sa.not_(revived)), old[name]), else_=new[name])

    updated = {
        "run": keep_known("run"),
        "conversation": keep_known("conversation"),
        "speaker": keep_known("speaker"),
        "topic": keep_known("topic"),
        "turn_ids": keep_known("turn_ids", "[]"),
        "text": new.text,
        "time": sa.case((revived, new.time), else_=old.time),
        "updated_at": new.updated_at,
        "deleted_at": sa.null(),
    }
    return statement.on_conflict_do_update(index_elements=["owner", "id"], set_=updated)


def _mark_deleted(connection: sa.Connection, deletion: Deletion) -> None:
    scope, memory_id = deletion.scope, deletion.memory_id
    # An empty part means "not given", so it does not restrict; a memory's id says enough without its run.
    given = {"tenant": scope.tenant, "user": scope.user, "agent": scope.agent, "run": "" if memory_id else scope.run}
    conditions = [memories.c[name] == value for name, value in given.items() if value]
    if scope.user or scope.agent or scope.run:
        # A name without a tenant is a name outside of all tenants: equal names of two tenants are two people.
        conditions.append(memories.c.tenant == scope.tenant)
    if memory_id:
        conditions.append(memories.c.id == memory_id)
    if scope == Scope():
        _check_deletion_has_one_owner(connection, memory_id)
    living = sa.update(memories).where(memories.c.deleted_at.is_(None), *conditions)
    connection.execute(living.values(deleted_at=deletion.time))


def _check_deletion_has_one_owner(connection: sa.Connection, memory_id: str) -> None:
    owners = sa.select(memories.c.owner).where(memories.c.id == memory_id).distinct().limit(2)
    _require_one_owner(connection.execute(owners).scalars().all(), memory_id, "Give the Deletion the memory's scope.")


def _check_feedback_has_one_owner(connection: sa.Connection, memory_id: str) -> None:
    """Check that feedback by a memory's id alone means one memory: at most one owner that found it may have it."""
    returned = retrievals.join(retrieval_results, retrieval_results.c.retrieval_id == retrievals.c.id)
    searchers = sa.select(retrievals.c.owner).select_from(returned).where(retrieval_results.c.memory_id == memory_id)
    owners = connection.execute(searchers.distinct()).scalars().all()
    if len(owners) > 1:
        # One person's searches, with and without an agent's name, may find the same memory.
        having = sa.select(memories.c.owner).where(memories.c.owner.in_(owners[:_LOOKUP]), memories.c.id == memory_id)
        owners = connection.execute(having).scalars().all() or owners
    _require_one_owner(owners, memory_id, "Give feedback with the retrieval's id.")


def _require_one_owner(owners: Sequence[str], memory_id: str, hint: str) -> None:
    if len(owners) > 1:
        raise EventRefusedError(f"Two owners have a memory {memory_id!r}; it is not known whose is meant.", hint)


def _latest_retrieval(connection: sa.Connection, memory_id: str) -> str:
    found = connection.execute(
        sa.select(retrievals.c.id)
        .join(retrieval_results, retrieval_results.c.retrieval_id == retrievals.c.id)
        .where(retrieval_results.c.memory_id == memory_id)
        .order_by(retrievals.c.seq.desc())
        .limit(1)
    ).scalar()
    return cast("str | None", found) or ""


def _known(connection: sa.Connection, ids: Collection[str]) -> set[str]:
    """Return those of the ids that are retrievals in the log."""
    found: set[str] = set()
    for chunk in chunks_of(ids, _LOOKUP):
        found.update(connection.execute(sa.select(retrievals.c.id).where(retrievals.c.id.in_(chunk))).scalars())
    return found
