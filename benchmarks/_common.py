"""What every benchmark shares: arguments, data files, progress, the table on the screen and the JSON result."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from hins_memory.config import Settings
from hins_memory.errors import ConfigError, HinsError

__all__ = [
    "DataSource",
    "base_parser",
    "code_versions",
    "console",
    "exit_status",
    "progress",
    "resolve_data",
    "show_table",
    "stage",
    "write_result",
]

T = TypeVar("T")

#: Stages and progress go to standard error, tables to standard output.
console = Console(stderr=True)

_TIMEOUT_SECONDS = 60
_PIPE_WIDTH = 120
_PACKAGES = (
    "hins-memory",
    "mem0ai",
    "memoryos-pro",
    "sentence-transformers",
    "torch",
    "transformers",
    "numpy",
    "qdrant-client",
)


@dataclass(frozen=True, slots=True)
class DataSource:
    """A public data file: its name, official address, SHA-256 (64 hexadecimal digits) and licence."""

    name: str
    url: str
    sha256: str
    licence: str


def base_parser(description: str) -> argparse.ArgumentParser:
    """Return a parser with the arguments of every benchmark: ``--seed``, ``--quick`` and ``--json``."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--seed", type=int, default=0, help="seed of everything random (default 0)")
    parser.add_argument("--quick", action="store_true", help="a small run of under a minute, to see that it works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write figures, rows, settings and versions there")
    return parser


def exit_status(main: Callable[[], None]) -> int:
    """Run `main` and return the exit status: 0, or that of a `HinsError`, whose message goes to standard error."""
    try:
        main()
    except HinsError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def resolve_data(path: Path | None, source: DataSource) -> Path:
    """Return a data file: the one given, else the checked download under ``$HINS_HOME/benchmarks``.

    Args:
        path: the file the user named; used as it is, whatever its digest.
        source: where to fetch it from otherwise.

    Raises:
        ConfigError: the named file is missing, or it can neither be found nor downloaded, or its digest is wrong.
    """
    if path is not None:
        if not path.is_file():
            raise ConfigError(f"There is no file {path}.", "Check the path, or leave it out to download the file.")
        return path
    target = Settings().home / "benchmarks" / source.name
    if target.is_file() and _digest(target.read_bytes()) == source.sha256:
        return target
    stage(f"downloading {source.url} ({source.licence})")
    try:
        with urllib.request.urlopen(source.url, timeout=_TIMEOUT_SECONDS) as response:
            content = bytes(response.read())
    except OSError as error:
        raise ConfigError(
            f"{source.name} is not at {target} and could not be downloaded from {source.url}: {error}.",
            "Download it elsewhere and name it with --data FILE.",
        ) from error
    if (found := _digest(content)) != source.sha256:
        raise ConfigError(
            f"{source.url} gave a file with SHA-256 {found}, expected {source.sha256}.",
            "Try again later, or name your own copy with --data FILE.",
        )
    _write_atomically(target, content)
    return target


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _write_atomically(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


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


def write_result(
    path: Path | None,
    figures: Mapping[str, float],
    rows: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Return a benchmark's result, and write it as JSON where a path is given.

    Returns:
        ``{"figures": {name: number}, "rows": [...], "settings": {...}, "versions": {...}}``
    """
    result = {
        "figures": dict(figures),
        "rows": [dict(row) for row in rows],
        "settings": {name: _plain(value) for name, value in settings.items()},
        "versions": _versions(),
    }
    if path is not None:
        text = json.dumps(result, indent=2, ensure_ascii=False, allow_nan=False)
        _write_atomically(path, text.encode())
        stage(f"result written to {path}")
    return result


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def code_versions() -> dict[str, str]:
    """Return the versions of the packages that a result depends on."""
    versions = _versions()
    versions.pop("machine", None)
    return versions


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "machine": platform.machine()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions
