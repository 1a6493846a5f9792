"""Writes many rows in one statement: PostgreSQL's COPY where there are enough of them, else an INSERT for each."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa

from hins_memory.database.engine import SCHEMA_REVISION
from hins_memory.log.rows import Row

__all__ = ["put"]

# Fewer rows take as long as INSERTs (decision 0031).
_COPY_ROWS = 100
_MAY_COPY = "hins_may_copy"


def put(
    connection: sa.Connection,
    table: sa.Table,
    values: Sequence[Row],
    on_conflict: Callable[[Any], Any],
    key: tuple[str, ...] = (),
) -> None:
    """Insert rows in their order.

    Args:
        connection: in a transaction.
        table: where to.
        values: the rows, all with the same columns.
        on_conflict: adds what happens to a row that is there to an INSERT of the database's dialect.
        key: of a row that may be updated: two rows with one key are written one after the other.
    """
    if not values:
        return
    repeats = key and len({tuple(row[name] for name in key) for row in values}) < len(values)
    if len(values) < _COPY_ROWS or repeats or not _may_copy(connection):
        connection.execute(on_conflict(_insert(connection, table)), values)
        return
    names = list(values[0])
    staged = _stage(connection, table, names, values)
    # In the order of the rows: `seq` says in which order events were written.
    rows = sa.select(*staged.columns).order_by(sa.literal_column("ctid"))
    connection.execute(on_conflict(_insert(connection, table).from_select(names, rows)))
    connection.execute(sa.delete(staged))


def _insert(connection: sa.Connection, table: sa.Table) -> Any:
    """Return an INSERT with ON CONFLICT, which SQLAlchemy has in each database's own dialect."""
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects import postgresql

        return postgresql.insert(table)
    from sqlalchemy.dialects import sqlite

    return sqlite.insert(table)


def _may_copy(connection: sa.Connection) -> bool:
    """Return whether the driver has COPY, and this user the right to temporary tables, as users have by default."""
    if connection.dialect.name != "postgresql" or connection.dialect.driver != "psycopg":
        return False
    if _MAY_COPY not in connection.info:
        right = sa.text("SELECT has_database_privilege(current_database(), 'TEMP')")
        connection.info[_MAY_COPY] = bool(connection.execute(right).scalar())
    return bool(connection.info[_MAY_COPY])


def _stage(connection: sa.Connection, table: sa.Table, names: Sequence[str], values: Sequence[Row]) -> sa.TableClause:
    """Copy rows into a temporary table, which a connection makes once and every transaction leaves empty."""
    # With the schema's revision: a connection may be older than a migration.
    staged = sa.table(f"hins_staged_{table.name}_{SCHEMA_REVISION}", *(sa.column(name) for name in names))
    columns = ", ".join(f'"{name}"' for name in names)
    connection.exec_driver_sql(
        f"CREATE TEMPORARY TABLE IF NOT EXISTS {staged.name} ON COMMIT DELETE ROWS AS "
        f"SELECT {columns} FROM {table.name} WITH NO DATA"
    )
    as_json = {column.name for column in table.columns if isinstance(column.type, sa.JSON)}
    driver: Any = connection.dialect.dbapi
    copy = f"COPY {staged.name} ({columns}) FROM STDIN"
    try:
        raw: Any = connection.connection.driver_connection
        with raw.cursor() as cursor, cursor.copy(copy) as stream:
            for row in values:
                stream.write_row([json.dumps(row[name]) if name in as_json else row[name] for name in names])
    except driver.Error as error:
        # As SQLAlchemy would have raised it, with no row in the message.
        raise sa.exc.DBAPIError.instance(
            copy, None, error, driver.Error, hide_parameters=True, dialect=connection.dialect
        ) from error
    return staged
