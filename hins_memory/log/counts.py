"""How much the log holds: counted, or, in a PostgreSQL of many millions of rows, as the server estimates it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from hins_memory.database.tables import answers, feedback, memories, retrievals, turns

__all__ = ["LogCounts", "count_log", "count_rows", "owner_keys"]

# Counting more rows than this takes PostgreSQL seconds, since every count reads all of them.
_EXACT_ROWS = 1_000_000


@dataclass(frozen=True, slots=True)
class LogCounts:
    """How much the log holds. `memories` counts the live ones; `owners` are scopes without their run.

    `estimated`: the figures are the database's own estimates, as of its last ANALYZE, which autovacuum runs.
    """

    turns: int
    memories: int
    retrievals: int
    answers: int
    feedback: int
    owners: int
    conversations: int
    estimated: bool = False


def owner_keys() -> sa.CompoundSelect[Any]:
    """Return the query of the keys of all owners; each part reads only the index that starts with the owner."""
    return sa.union(*(sa.select(table.c.owner).distinct() for table in (turns, memories, retrievals)))


def count_rows(connection: sa.Connection, table: sa.Table) -> int:
    """Return how many rows a table has, estimated where counting would take seconds."""
    estimate = _estimated_rows(connection, table)
    return _count(connection, table) if estimate is None else estimate


def count_log(connection: sa.Connection) -> LogCounts:
    """Return how much the log holds."""
    tables = (turns, memories, retrievals, answers, feedback)
    living = memories.c.deleted_at.is_(None)
    if any(_estimated_rows(connection, table) is not None for table in tables):
        owners = max(_estimated_values(connection, table, "owner") for table in (turns, memories, retrievals))
        named = max(_estimated_values(connection, table, "conversation") for table in (turns, memories))
        return LogCounts(
            turns=count_rows(connection, turns),
            memories=round(count_rows(connection, memories) * _share_empty(connection, memories, "deleted_at")),
            retrievals=count_rows(connection, retrievals),
            answers=count_rows(connection, answers),
            feedback=count_rows(connection, feedback),
            owners=owners,
            # A conversation belongs to one owner, though two owners may give theirs one name.
            conversations=max(owners, named),
            estimated=True,
        )
    conversations = sa.union(
        sa.select(turns.c.owner, turns.c.conversation),
        sa.select(memories.c.owner, memories.c.conversation).where(living),
    ).subquery()
    return LogCounts(
        turns=_count(connection, turns),
        memories=_count(connection, memories, living),
        retrievals=_count(connection, retrievals),
        answers=_count(connection, answers),
        feedback=_count(connection, feedback),
        owners=_count(connection, owner_keys().subquery()),
        conversations=_count(connection, conversations),
    )


def _count(connection: sa.Connection, table: sa.FromClause, *conditions: sa.ColumnElement[bool]) -> int:
    return connection.execute(sa.select(sa.func.count()).select_from(table).where(*conditions)).scalar_one()


def _estimated_rows(connection: sa.Connection, table: sa.Table) -> int | None:
    """Return the server's estimate, None where rows are few enough to count, or were never estimated."""
    if connection.dialect.name != "postgresql":
        return None
    query = sa.text("SELECT reltuples FROM pg_class WHERE oid = to_regclass(:name)")
    estimate = connection.execute(query, {"name": table.name}).scalar()
    return None if estimate is None or estimate <= _EXACT_ROWS else round(estimate)


def _statistic(connection: sa.Connection, table: sa.Table, column: str, name: str) -> float:
    query = sa.text(
        f"SELECT {name} FROM pg_stats JOIN pg_class ON relname = tablename JOIN pg_namespace n ON n.oid = relnamespace "
        "WHERE pg_class.oid = to_regclass(:table) AND nspname = schemaname AND attname = :column"
    )
    return float(connection.execute(query, {"table": table.name, "column": column}).scalar() or 0.0)


def _estimated_values(connection: sa.Connection, table: sa.Table, column: str) -> int:
    distinct = _statistic(connection, table, column, "n_distinct")
    # Negative: a share of the rows, where the number of values is expected to grow with them.
    return round(distinct if distinct >= 0 else -distinct * count_rows(connection, table))


def _share_empty(connection: sa.Connection, table: sa.Table, column: str) -> float:
    return _statistic(connection, table, column, "null_frac")
