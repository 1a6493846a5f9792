"""Write the tables of options into docs/reference/cli.md, from the command line itself.

    python tools/site/cli_reference.py

What is between two marks of a command is written anew; everything else on the page is written by people. A command
without a section gets one, with its help text. `make docs` runs this, and a test fails while the page is not what this
writes.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import typer

from hins_memory.cli import app

__all__ = ["commands", "main", "updated"]

_PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "cli.md"
_BEGIN, _END = "<!-- options, written by tools/site/cli_reference.py -->", "<!-- end of options -->"
_BLOCK = re.compile(rf"{re.escape(_BEGIN)}\n.*?{re.escape(_END)}\n", re.DOTALL)


def commands() -> dict[str, Any]:
    """Return every command by its full name, in the order of ``hins --help``."""
    return dict(_leaves(typer.main.get_command(app), ()))


def _leaves(command: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    if not hasattr(command, "commands"):
        yield " ".join(path), command
        return
    for name, child in command.commands.items():
        yield from _leaves(child, (*path, name))


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _is_argument(parameter: Any) -> bool:
    return not parameter.opts[0].startswith("-")


def _argument(parameter: Any) -> str:
    name = parameter.metavar or parameter.name.upper()
    return name if parameter.required or name.startswith("[") else f"[{name}]"


def _name(parameter: Any) -> str:
    if _is_argument(parameter):
        return f"`{_argument(parameter)}`"
    names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
    return f"{names} `{_cell(parameter.metavar)}`" if parameter.metavar else names


def _default(parameter: Any) -> str:
    value = getattr(parameter.default, "value", parameter.default)
    told = value not in (None, "", ()) and not isinstance(value, bool) and not callable(value)
    return f"`{value}`" if told and not parameter.required else ""


def _table(name: str, command: Any) -> str:
    parameters = [one for one in command.params if one.name not in ("as_json", "help")]
    usage = ["[OPTIONS]", *(_argument(one) for one in parameters if _is_argument(one))]
    lines = [_BEGIN, f"`hins {name} {' '.join(usage)}`", ""]
    if parameters:
        lines += ["| option | meaning | default |", "|---|---|---|"]
        lines += [f"| {_name(one)} | {_cell(one.help or '')} | {_default(one)} |" for one in parameters]
        lines.append("")
    return "\n".join([*lines, _END, ""])


def updated(page: str) -> str:
    """Return the page with every command's table of options as the command line is now."""
    for name, command in commands().items():
        heading = f"\n## hins {name}\n"
        if heading not in page:
            page = f"{page.rstrip()}\n{heading}\n{command.help}\n"
        before, section = page.split(heading)
        section, *after = re.split(r"(?m)^(?=## )", section, maxsplit=1)
        prose = _BLOCK.sub("", section).strip("\n")
        page = f"{before}{heading}\n{prose}\n\n{_table(name, command)}\n{''.join(after)}"
    return page.rstrip() + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page; with ``--check`` only say, by the exit status, whether it is up to date."""
    page = _PAGE.read_text(encoding="utf-8")
    new = updated(page)
    if "--check" in (sys.argv[1:] if argv is None else argv):
        return int(page != new)
    _PAGE.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
