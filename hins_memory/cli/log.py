"""`hins log show|export|retain|purge`: shows, exports and removes what was recorded."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hins_memory.cli.options import settings_of
from hins_memory.cli.screen import Bars, Result, command, json_line, table
from hins_memory.common.printable import moment
from hins_memory.common.secrets import masked
from hins_memory.database.engine import open_database
from hins_memory.database.leases import Leases
from hins_memory.errors import ConfigError, LogError
from hins_memory.log.copies import writing_copy
from hins_memory.log.parquet import export_parquet, remove_export
from hins_memory.log.purge import tenants_of
from hins_memory.log.reader import LogReader
from hins_memory.log.retain import retain

if TYPE_CHECKING:
    import sqlalchemy as sa

    from hins_memory.config import Settings
    from hins_memory.log.reader import LogEntry

__all__ = ["log"]

log = typer.Typer(help="Show, export, thin out or purge what was recorded.", no_args_is_help=True)
_SHOWN_CHARS = 100


class _Keep(str, Enum):
    outcomes = "outcomes"


@log.command()
@command
def show(
    context: typer.Context,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many entries.")] = 20,
    user: Annotated[str | None, typer.Option("--user", help="Only entries of this user.")] = None,
) -> Result:
    """Show the latest entries of the interaction log, newest first."""
    reader = LogReader(open_database(settings_of(context).database_url))
    # The reader has no filter: of the latest N entries, those of the user are shown.
    entries = [
        entry
        for entry in reader.latest(limit if user is None else max(limit, 10_000))
        if user is None or entry.scope.user == user
    ][:limit]
    data = {
        "entries": [
            {
                "time": entry.time,
                "kind": entry.kind,
                "scope": entry.scope.key,
                "text": entry.text,
                "detail": entry.detail,
            }
            for entry in entries
        ]
    }
    if not entries:
        return Result(data, ("The log holds nothing" + (f" of {user!r}." if user else " yet."),))
    return Result(data, (table(("time (UTC)", "kind", "scope", "text", "detail"), map(_row, entries)),))


def _row(entry: LogEntry) -> tuple[str, ...]:
    text = " ".join(entry.text.split())
    return (
        moment(entry.time),
        entry.kind,
        entry.scope.key,
        text[:_SHOWN_CHARS] + ("..." if len(text) > _SHOWN_CHARS else ""),
        entry.detail,
    )


@log.command()
@command
def export(
    context: typer.Context,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write here instead of to stdout.")
    ] = None,
    parquet: Annotated[
        str | None,
        typer.Option("--parquet", metavar="DIR|URL", help="Write Parquet files here: a folder, or s3://bucket/folder."),
    ] = None,
) -> Result:
    """Write every event as JSON, one a line; with --json and no file, as one JSON object; or all tables as Parquet."""
    settings = settings_of(context)
    engine = open_database(settings.database_url)
    if parquet is not None:
        if output is not None:
            raise ConfigError("--output and --parquet exclude each other.", "Leave one out.")
        return _export_parquet(settings, engine, parquet)
    reader = LogReader(engine)
    if output is not None:
        with writing_copy(settings.root, engine, output, "hins log export"):
            count = _write(output, reader)
        return Result({"path": output, "events": count}, (f"{count} events written to {output}",))
    as_json = bool(context.params.get("as_json"))
    return Result(lines=_as_object(reader) if as_json else (json_line(event) + "\n" for event in reader.export()))


def _export_parquet(settings: Settings, engine: sa.Engine, place: str) -> Result:
    def remove() -> None:
        remove_export(place)

    with contextlib.ExitStack() as stack:
        # Two exports into one folder would mix.
        stack.enter_context(Leases(engine, settings.root / "locks").hold(f"the export to {masked(place)}"))
        stack.enter_context(writing_copy(settings.root, engine, place, "hins log export --parquet", remove))
        export = export_parquet(engine, place, stack.enter_context(Bars()))
    count = sum(export.rows.values())
    return Result({"place": masked(place), **asdict(export)}, (f"{count} rows written to {masked(place)}",))


def _as_object(reader: LogReader) -> Iterator[str]:
    """Yield one JSON object piece by piece: the log may be larger than the memory."""
    separator = '{"events": [\n'
    for event in reader.export():
        yield separator + json_line(event)
        separator = ",\n"
    yield "\n]}\n" if separator.startswith(",") else '{"events": []}\n'


def _write(path: Path, reader: LogReader) -> int:
    """Write all or nothing, readable by its owner only: it holds conversations."""
    count = 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            for event in reader.export():
                stream.write(json_line(event, ascii_only=False) + "\n")
                count += 1
        os.replace(temporary, path)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        Path(temporary).unlink(missing_ok=True)
    return count


def _unwritable(path: Path, error: OSError) -> LogError:
    return LogError(f"{path} cannot be written: {error}.", "Name another file with --output.")


@log.command("retain")
@command
def retain_(
    context: typer.Context,
    days: Annotated[int, typer.Option("--days", metavar="N", min=1, help="Remove what is older than N days.")],
    keep: Annotated[
        _Keep | None, typer.Option("--keep", help="Keep searches that have an outcome: what training learns from.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how much would go.")] = False,
) -> Result:
    """Remove old searches with their outcomes, old turns, and memories that were deleted long ago.

    Live memories stay. This is not a purge: for a person's right to be forgotten use `hins log purge`.
    """
    engine = open_database(settings_of(context).database_url)
    with Bars() as bars:
        report = retain(engine, days, "outcomes" if keep else "", dry_run=dry_run, progress=bars)
    heading = "would be removed from" if dry_run else "removed from"
    found = table((heading, "rows"), report.removed.items())
    if not any(report.removed.values()):
        return Result(report.to_dict(), (f"The log holds nothing older than {moment(report.before)} UTC that goes.",))
    return Result(report.to_dict(), (found,))


@log.command()
@command
def purge(
    context: typer.Context,
    user: Annotated[str, typer.Option("--user", help="Whose records are removed, in every agent.")],
    tenant: Annotated[
        str | None, typer.Option("--tenant", metavar="TENANT", help='Only those of this tenant; "" for those without.')
    ] = None,
    all_tenants: Annotated[
        bool, typer.Option("--all-tenants", help="Every user of that name, if several tenants have one.")
    ] = False,
    delete_copies: Annotated[
        bool, typer.Option("--delete-copies", help="Delete exports, mined examples and gate reports on this host, too.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> Result:
    """Remove a person from the log and from what was made of it, and name what cannot be reached.

    The memories that the agent itself stores are the agent's: delete them there, and first. A version that was
    trained before stays as it is. Exit status 5: the rows are gone, but the log's files still hold copies of them,
    because another process reads it; run the same command again.
    """
    from hins_memory.loop.purge import purge_person

    if not yes and context.params.get("as_json"):
        raise ConfigError("Nothing was removed: with --json there is no question to answer.", "Add --yes.")
    settings = settings_of(context)
    _check_tenant(tenants_of(open_database(settings.database_url), user), user, tenant, all_tenants)
    if not yes:
        question = f"Remove everything recorded of the user {user!r} of the tenant {tenant!r}?"
        if not tenant:
            question = f"Remove everything recorded of the user {user!r}?"
        typer.confirm(question, abort=True, err=True)
    report = purge_person(settings, user, tenant, delete_copies=delete_copies)
    found = any(report.removed.values())
    rows = table(("removed from", "rows"), report.removed.items()) if found else f"The log holds nothing of {user!r}."
    parts: list[Any] = [rows, *(f"Deleted {path}" for path in report.deleted)]
    left = [(one.what, one.where or "-", one.advice) for one in report.left]
    parts += ["This purge does not reach:", table(("what", "where", "what to do"), left)]
    return Result(report.to_dict(), tuple(parts), LogError.exit_code if report.problem else 0)


def _check_tenant(tenants: list[str], user: str, tenant: str | None, all_tenants: bool) -> None:
    """Refuse to remove several people because they have the same name."""
    if tenant is not None and all_tenants:
        raise ConfigError("--tenant and --all-tenants exclude each other.", "Leave one out.")
    if tenant is None and not all_tenants and len(tenants) > 1:
        names = ", ".join(repr(name) for name in tenants)
        raise ConfigError(
            f"Nothing was removed: {len(tenants)} tenants have a user {user!r}: {names}.",
            "Name the person's with --tenant, or add --all-tenants.",
        )
