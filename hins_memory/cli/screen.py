"""Prints a command's result as text and tables, or as one JSON object for scripts; prints errors and progress."""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import math
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, TextIO, Union

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from hins_memory.cli.terminal import PrintableStream, error_console, json_text, output_console
from hins_memory.common.printable import one_line, printable
from hins_memory.errors import HinsError

__all__ = ["Bars", "Part", "Result", "command", "json_line", "note", "say_version", "table"]

#: What people see of a result: a text as it is, without markup, or what `table` makes.
Part = Union[str, Table]  # noqa: UP007  # an alias is evaluated, and Python 3.10 has no | for a str and a class of rich

# From here on, numbers are shown in scientific notation.
_PLAIN = 1e15
_AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout instead of text.")]


@dataclass(frozen=True)
class Result:
    """What a command gives back.

    Attributes:
        data: what ``--json`` prints.
        parts: what people see, one below the other.
        exit_code: the exit status; other than 0 where the command worked but its answer is "no".
        lines: instead of the two above, text to write to stdout piece by piece, for what may be large.
    """

    data: Mapping[str, Any] = field(default_factory=dict)
    parts: tuple[Part, ...] = ()
    exit_code: int = 0
    lines: Iterable[str] | None = None


def command(function: Callable[..., Result]) -> Callable[..., None]:
    """Make a typer command of a function that returns a `Result`, and give it the option ``--json``.

    Expected errors become one sentence on stderr (with ``--json`` an object with the key ``error`` on stdout too) and
    the error's own exit status.
    """

    @functools.wraps(function)
    def run(*args: Any, as_json: bool = False, **kwargs: Any) -> None:
        try:
            # What a library prints must not be mixed into the JSON.
            stdout = sys.stdout
            with contextlib.redirect_stdout(sys.stderr):
                result = function(*args, **kwargs)
            _print(result, as_json, stdout)
        except HinsError as error:
            if as_json:
                sys.stdout.write(_dumps({"error": _described(error)}))
            text = Text.assemble(("Error: ", "bold red"), printable(str(error)))
            error_console().print(text, soft_wrap=True)
            raise typer.Exit(error.exit_code) from error
        if result.exit_code:
            raise typer.Exit(result.exit_code)

    # typer reads a command's options from the signature; every command gets --json here, so that none lacks it.
    # Not get_type_hints: on Python 3.10 it hides the options of arguments whose default is None in an Optional.
    parameters = list(inspect.signature(function, eval_str=True).parameters.values())
    option = inspect.Parameter("as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=_AsJson)
    run.__signature__ = inspect.Signature([*parameters, option])  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in [*parameters, option]}
    return run


def _print(result: Result, as_json: bool, stdout: TextIO) -> None:
    if result.lines is not None:
        for line in result.lines:
            stdout.write(line)
    elif as_json:
        stdout.write(_dumps(result.data))
    else:
        console = output_console(stdout)
        for part in result.parts:
            console.print(Text(printable(part)) if isinstance(part, str) else part)
    stdout.flush()


def _described(error: HinsError) -> dict[str, Any]:
    return {
        "type": type(error).__name__,
        "problem": error.problem,
        "hint": error.hint,
        "exit_code": error.exit_code,
    }


def _dumps(data: Mapping[str, Any]) -> str:
    return json_text(_plain(data), indent=2) + "\n"


def json_line(value: Any, *, ascii_only: bool = True) -> str:
    """Return a value as JSON on one line, without the line's end; what JSON does not know becomes null or text.

    Args:
        value: the value.
        ascii_only: fit for a terminal; False is for files.
    """
    return json_text(_plain(value)) if ascii_only else json.dumps(_plain(value), ensure_ascii=False)


def _plain(value: Any) -> Any:
    """Return a value as JSON knows it; NaN and infinities, which it does not know, become null."""
    if isinstance(value, Mapping):
        return {str(key.value if isinstance(key, Enum) else key): _plain(item) for key, item in value.items()}
    if isinstance(value, Enum):
        return _plain(value.value)
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    if isinstance(value, bool) or value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    # numpy's scalars and arrays
    return _plain(value.tolist()) if hasattr(value, "tolist") else str(value)


def note(text: str) -> None:
    """Print a message beside the result, on stderr."""
    error_console().print(Text(printable(text)), soft_wrap=True)


def say_version(version: str) -> None:
    """Print the version on stdout."""
    output_console(sys.stdout).print(Text(one_line(f"hins-memory {version}")))


def table(columns: Iterable[str], rows: Iterable[Iterable[Any]], title: str | None = None) -> Table:
    """Return a plain table: the first column left, numbers right; a float gets one decimal, None is a dash."""
    cells = [list(row) for row in rows]
    heading = None if title is None else Text(one_line(title), "bold")
    result_table = Table(title=heading, title_justify="left", box=None, pad_edge=False)
    for number, column in enumerate(columns):
        numeric = bool(cells) and all(_is_number(row[number]) or row[number] is None for row in cells)
        result_table.add_column(
            Text(one_line(column)), justify="right" if numeric and number else "left", overflow="fold"
        )
    for row in cells:
        result_table.add_row(*(Text(one_line(_cell(value))) for value in row))
    return result_table


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.1f}" if abs(value) < _PLAIN else f"{value:.4g}"
    return str(value)


class Bars:
    """Progress bars on stderr, one for each stage; called as (stage, done, total) from any thread.

    Nothing is drawn where stderr is not a terminal.

    Example:
        with Bars() as bars:
            bars.waiting("opening mem0")
            bars("train", 3, 20)
    """

    def __init__(self) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=error_console(),
            transient=True,
            # rich's redirection would pass escape sequences of the texts to the terminal.
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._tasks: dict[str, Any] = {}
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Bars:
        if self._progress.console.is_terminal:
            self._progress.start()
            self._open.callback(self._progress.stop)
            if isinstance(sys.stderr, PrintableStream):
                self._open.enter_context(sys.stderr.above(self._progress.console))
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show that `done` of `total` steps of a stage are done."""
        if stage not in self._tasks:
            self._finish_waiting()
            self._tasks[stage] = self._progress.add_task(one_line(stage), total=total or None)
        self._progress.update(self._tasks[stage], completed=done, total=total or None)

    def waiting(self, stage: str) -> None:
        """Show that a stage without countable steps runs, until the next one begins."""
        self._finish_waiting()
        self._tasks[stage] = self._progress.add_task(one_line(stage), total=None)

    def _finish_waiting(self) -> None:
        for task in self._progress.tasks:
            if task.total is None:
                self._progress.update(task.id, total=1, completed=1)
