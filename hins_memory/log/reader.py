"""Reads the interaction log: one owner at a time, so that memory does not grow with the number of owners."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import sqlalchemy as sa

from hins_memory.database.engine import database_errors, reading
from hins_memory.database.tables import answers, feedback, memories, retrieval_results, retrievals, turns
from hins_memory.log import rows
from hins_memory.log.counts import LogCounts, count_log, owner_keys
from hins_memory.types import Answer, Feedback, Memory, RankedMemory, Scope, ScopeLog

__all__ = ["LogCounts", "LogEntry", "LogReader"]

_MAX_VALUES = 500
EntryKind = Literal["turn", "memory", "retrieval", "answer", "feedback"]


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One recent event of the log. `text` is the turn, memory, query, answer or polarity with memory id.

    `detail` is shown beside it: the speaker, the number of results, or the retrieval's id. `time` is in seconds
    since the Unix epoch (UTC).
    """

    time: float
    kind: EntryKind
    scope: Scope
    text: str
    detail: str = ""


class LogReader:
    """Reads a log opened by `open_database`; a reader never waits for a writer.

    Every method raises `LogError` when the database cannot be read.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = reading(engine)

    def owners(self) -> list[Scope]:
        """Return the owners (scopes without their run) that the log holds anything of, in a fixed order."""
        with database_errors(self._engine.url), self._engine.connect() as connection:
            keys = connection.execute(owner_keys()).scalars().all()
        return sorted(Scope.from_key(key) for key in keys)

    def scope_logs(self, owners: Collection[Scope] | None = None) -> Iterator[ScopeLog]:
        """Yield everything of one owner after the other, each as one snapshot.

        Args:
            owners: whose logs to read (a run in them is ignored), in the order given; None means all. An owner that
                the log does not know is left out.
        """
        # Owners that are named are not looked up among all: reading one takes as long as what it holds.
        for owner in self.owners() if owners is None else dict.fromkeys(scope.owner for scope in owners):
            # No connection stays open while the caller works, which may take hours or write to the same database.
            with database_errors(self._engine.url), self._engine.connect() as connection:
                log = _read_owner(connection, owner)
            if log.turns or log.memories or log.retrievals or log.deleted:
                yield log

    def memories_of(self, owner: Scope, ids: Collection[str] | None = None) -> list[Memory]:
        """Return the live memories of an owner, or those of them with certain ids."""
        living = sa.select(memories).where(memories.c.owner == owner.owner.key, memories.c.deleted_at.is_(None))
        wanted = [] if ids is None else sorted(set(ids))
        parts = [memories.c.id.in_(wanted[at : at + _MAX_VALUES]) for at in range(0, len(wanted), _MAX_VALUES)]
        with database_errors(self._engine.url), self._engine.connect() as connection:
            queries = [living] if ids is None else [living.where(part) for part in parts]
            return [rows.row_memory(row) for query in queries for row in connection.execute(query)]

    def counts(self) -> LogCounts:
        """Return how much the log holds; in a PostgreSQL of many millions of rows as the server estimates it."""
        with database_errors(self._engine.url), self._engine.connect() as connection:
            return count_log(connection)

    def latest(self, limit: int = 20) -> list[LogEntry]:
        """Return the entries written last, at most `limit`, newest first by their own times."""
        with database_errors(self._engine.url), self._engine.connect() as connection:
            entries = [entry for kind in _LATEST for entry in _latest(connection, kind, limit)]
        return sorted(entries, key=lambda entry: entry.time, reverse=True)[: max(limit, 0)]

    def stored(self, texts: Collection[str]) -> set[str]:
        """Return those of `texts` that are the text of some memory, deleted ones included."""
        found: set[str] = set()
        wanted = sorted(set(texts))
        with database_errors(self._engine.url), self._engine.connect() as connection:
            # In parts, because a statement takes a bounded number of values.
            for start in range(0, len(wanted), _MAX_VALUES):
                part = wanted[start : start + _MAX_VALUES]
                query = sa.select(memories.c.text).where(memories.c.text.in_(part)).distinct()
                found.update(connection.execute(query).scalars())
        return found

    def export(self) -> Iterator[dict[str, Any]]:
        """Yield every event as a JSON-able dict, owner by owner: its fields and ``type``.

        A retrieval carries its results; a deleted memory carries ``deleted_at``; outcomes name their retrieval.
        """
        for log in self.scope_logs():
            with database_errors(self._engine.url), self._engine.connect() as connection:
                deleted = _deleted_memories(connection, log.scope)
            yield from (_exported("turn", turn) for turn in log.turns)
            yield from (_exported("memory", memory) for memory in log.memories)
            yield from deleted
            yield from (_exported("retrieval", retrieval) for retrieval in log.retrievals)
            yield from (_exported("answer", answer) for answer in log.answers)
            yield from (_exported("feedback", item) for item in log.feedback)


def _of_owner(table: sa.Table, key: str) -> sa.Select[Any]:
    return sa.select(table).where(table.c.owner == key).order_by(table.c.time, table.c.seq)


def _read_owner(connection: sa.Connection, owner: Scope) -> ScopeLog:
    key = owner.key
    turn_rows = connection.execute(_of_owner(turns, key)).all()
    turn_ids = {row.id for row in turn_rows}
    memory_rows = connection.execute(_of_owner(memories, key)).all()
    living = [row for row in memory_rows if row.deleted_at is None]
    results = _read_results(connection, key)
    retrieval_rows = connection.execute(_of_owner(retrievals, key)).all()
    return ScopeLog(
        scope=owner,
        turns=tuple(rows.row_turn(row) for row in turn_rows),
        # A turn that redaction left out is not in the log: its id is removed from its memories.
        memories=tuple(rows.row_memory(row, turn_ids) for row in living),
        retrievals=tuple(rows.row_retrieval(row, tuple(results.get(row.id, ()))) for row in retrieval_rows),
        answers=_read_answers(connection, key),
        feedback=_read_feedback(connection, key),
        deleted=len(memory_rows) - len(living),
    )


def _read_results(connection: sa.Connection, key: str) -> Mapping[str, list[RankedMemory]]:
    statement = (
        sa.select(retrieval_results)
        .join(retrievals, retrievals.c.id == retrieval_results.c.retrieval_id)
        .where(retrievals.c.owner == key)
        .order_by(retrieval_results.c.retrieval_id, retrieval_results.c.rank)
    )
    results: dict[str, list[RankedMemory]] = {}
    for row in connection.execute(statement):
        results.setdefault(row.retrieval_id, []).append(rows.row_result(row))
    return results


def _outcomes(table: sa.Table) -> sa.Select[Any]:
    scope = [retrievals.c[name] for name in ("tenant", "user", "agent", "run")]
    return sa.select(table, *scope).join(retrievals, retrievals.c.id == table.c.retrieval_id)


def _outcomes_of_owner(table: sa.Table, key: str) -> sa.Select[Any]:
    return _outcomes(table).where(retrievals.c.owner == key).order_by(table.c.time, table.c.seq)


def _read_answers(connection: sa.Connection, key: str) -> tuple[Answer, ...]:
    return tuple(rows.row_answer(row) for row in connection.execute(_outcomes_of_owner(answers, key)))


def _read_feedback(connection: sa.Connection, key: str) -> tuple[Feedback, ...]:
    return tuple(rows.row_feedback(row) for row in connection.execute(_outcomes_of_owner(feedback, key)))


def _deleted_memories(connection: sa.Connection, owner: Scope) -> list[dict[str, Any]]:
    statement = _of_owner(memories, owner.key).where(memories.c.deleted_at.is_not(None))
    return [
        {**_exported("memory", rows.row_memory(row)), "deleted_at": row.deleted_at}
        for row in connection.execute(statement)
    ]


def _exported(kind: EntryKind, event: Any) -> dict[str, Any]:
    return {"type": kind, **asdict(event)}


def _count_results() -> sa.ScalarSelect[Any]:
    own = retrieval_results.c.retrieval_id == retrievals.c.id
    return sa.select(sa.func.count()).select_from(retrieval_results).where(own).scalar_subquery()


# kind -> (statement, the columns that an entry's text and detail come from)
_LATEST: dict[EntryKind, tuple[sa.Select[Any], str, str]] = {
    "turn": (sa.select(turns).order_by(turns.c.seq.desc()), "{row.text}", "{row.speaker}"),
    "memory": (
        sa.select(memories).where(memories.c.deleted_at.is_(None)).order_by(memories.c.seq.desc()),
        "{row.text}",
        "{row.speaker}",
    ),
    "retrieval": (
        sa.select(retrievals, _count_results().label("results")).order_by(retrievals.c.seq.desc()),
        "{row.query}",
        "{row.results} results, {row.id}",
    ),
    "answer": (_outcomes(answers).order_by(answers.c.seq.desc()), "{row.text}", "{row.retrieval_id}"),
    "feedback": (
        _outcomes(feedback).order_by(feedback.c.seq.desc()),
        "{row.polarity} {row.memory_id}",
        "{row.retrieval_id}",
    ),
}


def _latest(connection: sa.Connection, kind: EntryKind, limit: int) -> list[LogEntry]:
    statement, text, detail = _LATEST[kind]
    return [
        LogEntry(row.time, kind, rows.row_scope(row), text.format(row=row), detail.format(row=row))
        for row in connection.execute(statement.limit(max(limit, 0)))
    ]
