"""Writes the log as Parquet files into a folder or an object store: all of it as of one moment, in bounded memory.

A folder for each table (``turns/part-00000.parquet`` and so on), and ``manifest.json``, which is written last: an
export that has one is complete. Any reader of Parquet takes it: pyarrow, DuckDB, Spark, pandas.
"""

from __future__ import annotations

import contextlib
import json
import os
import posixpath
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from hins_memory.common.files import file_system_errors
from hins_memory.common.secrets import masked
from hins_memory.database.engine import database_errors, reading
from hins_memory.database.tables import answers, feedback, memories, retrieval_results, retrievals, turns
from hins_memory.errors import LogError
from hins_memory.types import Progress, now

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["MANIFEST", "LogExport", "export_parquet", "is_url", "remove_export"]

#: The file that says that an export is complete, and what it consists of.
MANIFEST = "manifest.json"
_TABLES = (turns, memories, retrievals, retrieval_results, answers, feedback)
# Memory holds one row group. A file ends after a million rows, so that readers may work on several at once.
_GROUP_ROWS, _GROUP_CHARS, _FILE_ROWS = 20_000, 16_000_000, 1_000_000
# Rows that the driver holds; a row is at most as long as what was recorded.
_FETCH = 1000
# They have no folders: making one there would make a bucket of a mistyped name, and removing one could remove a bucket.
_OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az"}
_PART = re.compile(r"part-\d{5,}\.parquet")


@dataclass(frozen=True, slots=True)
class LogExport:
    """What an export holds; as JSON it is the manifest.

    Attributes:
        made: of which moment, in seconds since the Unix epoch (UTC).
        rows: the number of rows by table.
        files: the number of rows by file, as a path in the export.
    """

    made: float
    rows: dict[str, int]
    files: dict[str, int]


def is_url(place: str) -> bool:
    """Return whether a place is a URL that fsspec knows, and not a path."""
    return "://" in place


def export_parquet(engine: sa.Engine, place: str, progress: Progress | None = None) -> LogExport:
    """Write every row of the log's tables, as of one moment, while others go on writing.

    What a killed export left in the place is replaced. Times are seconds since the Unix epoch (UTC); `seq` is the order
    of writing in each table, `owner` the key of the scope without its run; a deleted memory has `deleted_at`.

    Args:
        engine: the project's database.
        place: a folder, or a URL that fsspec knows: ``s3://bucket/folder``, ``gs://``, ``file:///mnt/share``.
        progress: told after each row group.

    Raises:
        LogError: the database cannot be read, the place cannot be written, or holds a complete export.
    """
    with _file_errors(place):
        target = _Target(place)
        if target.files.exists(target.path(MANIFEST)):
            raise LogError(f"{masked(place)} holds an export already.", "Name another folder.")
        remove_export(place)
        files: dict[str, int] = {}
        rows: dict[str, int] = {}
        with database_errors(engine.url), reading(engine).connect() as connection:
            made = now()
            # The first statement takes the snapshot that all tables are read in.
            connection.execute(sa.select(sa.func.max(turns.c.seq)))
            for table in _TABLES:
                written = _write_table(connection, table, target, progress)
                files |= written
                rows[table.name] = sum(written.values())
        export = LogExport(made, rows, files)
        with target.open(MANIFEST) as stream:
            stream.write(json.dumps({"format": 1, **asdict(export)}, indent=1).encode())
    return export


def remove_export(place: str) -> None:
    """Remove an export, or what was written of one; other files there stay.

    Raises:
        LogError: the place cannot be written.
    """
    with _file_errors(place):
        target = _Target(place)
        paths = [target.path(MANIFEST)]
        for table in _TABLES:
            paths += [path for path in target.listed(table.name) if _PART.fullmatch(posixpath.basename(path))]
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                target.files.rm_file(path)
        if target.has_folders:
            for folder in (*(target.path(table.name) for table in _TABLES), target.root):
                # Only where it is empty now.
                with contextlib.suppress(OSError):
                    target.files.rmdir(folder)


class _Target:
    """The folder that is written to, on any file system."""

    def __init__(self, place: str) -> None:
        from fsspec.core import url_to_fs

        self.files, self.root = url_to_fs(place if is_url(place) else os.path.abspath(place), use_listings_cache=False)
        names = self.files.protocol
        protocols = {names} if isinstance(names, str) else {*names}
        self._local = "file" in protocols
        self.has_folders = not protocols & _OBJECT_STORES

    def path(self, name: str) -> str:
        return f"{self.root}/{name}"

    def listed(self, folder: str) -> list[str]:
        try:
            return [str(path) for path in self.files.ls(self.path(folder), detail=False)]
        except FileNotFoundError:
            return []

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[Any]:
        """Open a file to write; on this host it is readable by its owner only, because it holds conversations."""
        path = self.path(name)
        if self._local:
            for folder in (self.root, os.path.dirname(path)):
                os.makedirs(folder, mode=0o700, exist_ok=True)
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as local:
                yield local
                local.flush()
                os.fsync(local.fileno())
            return
        if self.has_folders:
            self.files.makedirs(posixpath.dirname(path), exist_ok=True)
        with self.files.open(path, "wb") as stream:
            yield stream


def _write_table(
    connection: sa.Connection, table: sa.Table, target: _Target, progress: Progress | None
) -> dict[str, int]:
    """Write a table's rows into files, and return the number of rows by file; a table without rows has one file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(column.name, _type(column)) for column in table.columns])
    groups = _groups(connection, table)
    files: dict[str, int] = {}
    group = next(groups, [])
    while group or not files:
        name = f"{table.name}/part-{len(files):05d}.parquet"
        files[name] = 0
        with target.open(name) as stream, pq.ParquetWriter(stream, schema, compression="zstd") as writer:
            while group:
                writer.write_table(pa.Table.from_pylist(group, schema))
                files[name] += len(group)
                if progress:
                    progress(f"export: {table.name}", sum(files.values()), 0)
                group = next(groups, [])
                if files[name] >= _FILE_ROWS:
                    break
    return files


def _groups(connection: sa.Connection, table: sa.Table) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows, those with a `seq` in its order, in groups of bounded size."""
    query = sa.select(table)
    if "seq" in table.columns:
        query = query.order_by(table.c.seq)
    group: list[dict[str, Any]] = []
    chars = 0
    # The server, or the file, gives the rows as they are asked for.
    for row in connection.execution_options(yield_per=_FETCH).execute(query).mappings():
        group.append(dict(row))
        chars += sum(len(value) for value in row.values() if isinstance(value, str))
        if len(group) >= _GROUP_ROWS or chars >= _GROUP_CHARS:
            yield group
            group, chars = [], 0
    if group:
        yield group


def _type(column: sa.Column[Any]) -> pa.DataType:
    import pyarrow as pa

    if isinstance(column.type, sa.JSON):
        return pa.list_(pa.string())
    kinds: dict[type[Any], Callable[[], pa.DataType]] = {str: pa.string, int: pa.int64, float: pa.float64}
    return kinds[column.type.python_type]()


def _file_errors(place: str) -> AbstractContextManager[None]:
    problem = f"The log could not be exported to {masked(place)}"
    return file_system_errors(LogError, problem, "Check the place, its credentials and the room there.")
