"""The streams and consoles of the command line: text that a user typed cannot control the terminal.

All output goes through a console of this module, or through `PrintableStream`: the log, tracebacks,
warnings, what libraries print, and the messages of typer.
"""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.file_proxy import FileProxy
from rich.logging import RichHandler
from rich.segment import Segment

from hins_memory.common.printable import printable
from hins_memory.plugins.manager import plugin_packages

__all__ = [
    "PrintableFormatter",
    "PrintableStream",
    "error_console",
    "guard_streams",
    "json_text",
    "output_console",
    "set_up_logging",
]


class SafeConsole(Console):
    """A console that reads no markup and writes no escape sequences but its own.

    Args:
        stream: where it writes.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(file=stream, markup=False, emoji=False, highlight=False)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render as rich does; in texts, control characters are shown as their codes."""
        for segment in super().render(renderable, options):
            # What rich itself tells the terminal, e.g. to move the cursor, is marked as control.
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


class PrintableStream(io.TextIOBase):
    """A text stream that passes everything on as `printable` returns it.

    It says that it is not a terminal, so that programs do not write colours to it.

    Attributes:
        stream: where it writes.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self.stream = stream
        self._target: Any = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of the stream behind it."""
        return self.stream.encoding

    def write(self, text: str) -> int:
        """Write a text, made printable."""
        self._target.write(printable(text))
        return len(text)

    def flush(self) -> None:
        """Flush the stream behind it."""
        self._target.flush()

    def fileno(self) -> int:
        """Return the descriptor of the stream behind it: child processes inherit it."""
        return self.stream.fileno()

    def writable(self) -> bool:
        """Return True."""
        return True

    @contextmanager
    def above(self, console: Console) -> Iterator[None]:
        """Write above a console's live progress bars, instead of into them."""
        proxy = FileProxy(console, self.stream)
        self._target = proxy
        try:
            yield
        finally:
            proxy.flush()
            self._target = self.stream


def guard_streams() -> None:
    """Make stderr printable for everything in this process, and stdout able to write any text."""
    if not isinstance(sys.stderr, PrintableStream):
        sys.stderr = PrintableStream(sys.stderr)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Not every terminal has every character.
        sys.stdout.reconfigure(errors="backslashreplace")


_shared: list[SafeConsole] = []


def error_console() -> Console:
    """Return the console on stderr, one for all who write there; stdout is for results only."""
    stream: Any = sys.stderr
    while isinstance(stream, PrintableStream):
        stream = stream.stream
    if not _shared or _shared[0].file is not stream:
        _shared[:] = [SafeConsole(stream)]
    return _shared[0]


def output_console(stream: TextIO) -> Console:
    """Return a console for results."""
    return SafeConsole(stream)


def json_text(value: Any, indent: int | None = None) -> str:
    """Return JSON in printable ASCII: a terminal of any encoding shows it, and it has no control characters.

    Raises:
        ValueError: there is a NaN or an infinity in it.
    """
    return json.dumps(value, indent=indent, allow_nan=False).replace("\x7f", "\\u007f")


class PrintableFormatter(logging.Formatter):
    """Makes the whole entry printable before it is laid out, with its traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the entry, printable."""
        return printable(super().format(record))


def set_up_logging(verbose: bool) -> None:
    """Send the log to stderr: warnings, and with `verbose` what hins-memory and its plugins do."""
    if not verbose:
        warnings.simplefilter("ignore", FutureWarning)
    handler = RichHandler(console=error_console(), show_path=False, show_time=verbose, highlighter=None)
    handler.setFormatter(PrintableFormatter("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    # Mem0 warns of what its hybrid search needs; `hins doctor` explains it. Libraries' own bars would break ours.
    logging.getLogger("mem0").setLevel(logging.WARNING if verbose else logging.ERROR)
    os.environ.setdefault("TQDM_DISABLE", "1")
    # Mem0 reports its use over the network, and prints errors where there is none.
    os.environ.setdefault("MEM0_TELEMETRY", "False")
    for package in ("hins_memory", *plugin_packages()):
        logging.getLogger(package).setLevel(logging.INFO if verbose else logging.WARNING)
