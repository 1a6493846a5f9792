"""`hins log show|export|purge`: what was recorded, for the person whose machine it is on."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hins_memory.cli.options import settings_of
from hins_memory.cli.screen import Result, command, json_line, table
from hins_memory.common.printable import moment
from hins_memory.database.engine import open_database
from hins_memory.errors import ConfigError, LogError
from hins_memory.log.reader import LogReader
from hins_memory.log.writer import LogWriter
from hins_memory.training import discard_runs

if TYPE_CHECKING:
    from hins_memory.log.reader import LogEntry

__all__ = ["log"]

log = typer.Typer(help="Show, export or purge what was recorded.", no_args_is_help=True)
_SHOWN_CHARS = 100


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
) -> Result:
    """Write every event as JSON, one a line; with --json and no file, as one JSON object."""
    reader = LogReader(open_database(settings_of(context).database_url))
    if output is not None:
        count = _write(output, reader)
        return Result({"path": output, "events": count}, (f"{count} events written to {output}",))
    as_json = bool(context.params.get("as_json"))
    return Result(lines=_as_object(reader) if as_json else (json_line(event) + "\n" for event in reader.export()))


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


@log.command()
@command
def purge(
    context: typer.Context,
    user: Annotated[str, typer.Option("--user", help="Whose records are removed, in every agent and tenant.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> Result:
    """Remove a person from the log, and so from every later training set.

    The memories that the agent itself stores are the agent's: delete them there. An encoder that was trained before
    stays as it is; a training that was cut cannot be continued.
    """
    if not yes and context.params.get("as_json"):
        raise ConfigError("Nothing was removed: with --json there is no question to answer.", "Add --yes.")
    if not yes:
        typer.confirm(f"Remove everything recorded of the user {user!r}?", abort=True, err=True)
    settings = settings_of(context)
    removed: dict[str, Any] = LogWriter(open_database(settings.database_url)).purge(user)
    # An unfinished training holds texts of the log.
    discard_runs(settings.training)
    data = {"user": user, "removed": removed}
    if not any(removed.values()):
        return Result(data, (f"The log holds nothing of {user!r}.",))
    return Result(data, (table(("removed from", "rows"), removed.items()),))
