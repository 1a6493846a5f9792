"""What a person sees: stages and progress on standard error, tables on standard output."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

__all__ = ["console", "progress", "show_table", "stage"]

T = TypeVar("T")

#: Stages and progress go to standard error, tables to standard output.
console = Console(stderr=True)

_PIPE_WIDTH = 120


def stage(text: str) -> None:
    """Say which stage begins."""
    console.print(f"[bold]>[/bold] {text}", highlight=False)


def progress(items: Sequence[T], text: str) -> Iterator[T]:
    """Iterate over `items` with a progress bar.

    The bar has no thread of its own: a loop that an error ends leaves it to the garbage collector, which would wait for
    the thread wherever it happens to run, in the midst of other output too.
    """
    with Progress(console=console, transient=True, auto_refresh=False) as bar:
        yield from bar.track(items, description=f"  {text}")


def show_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a table; floats get one decimal, None is a dash."""
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right", no_wrap=number == 0)
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    # In a file or a pipe there is no width to keep to.
    Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH).print(table)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if isinstance(value, float) else str(value)
