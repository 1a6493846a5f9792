"""Writes the tables of docs/reference/settings.md from the settings classes: python tools/settings_reference.py."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from hins_memory.config import TABLES, Settings
from hins_memory.loop.settings import LoopSettings, TopLevel

_PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "settings.md"
_BEGIN = "<!-- tables, written by tools/settings_reference.py -->\n"
_END = "<!-- end of tables -->\n"
_ARGUMENT = re.compile(r"^ {4}(\w+): ", re.MULTILINE)
# Not of a table: the project itself, and what stands before the tables.
_WITHOUT = {"capture": {"home", "project"}, "mine": {"seed"}, "train": {"seed"}}
_CHOICES = {"Mode": "`full`, `lora`, `tower` or `query`", "Deep": "`advise`, `auto` or `never`"}
_TITLES = {
    "": "Before the tables",
    "capture": "`[capture]`: what is recorded, and where",
    "mine": "`[mine]`: what becomes an example",
    "train": "`[train]`: how the encoder is trained",
    "gate": "`[gate]`: what is held out, and what a new version has to show",
}


def classes() -> dict[str, Any]:
    """Return an object with the default values of each table."""
    loop = LoopSettings()
    return {
        "": TopLevel(),
        "capture": Settings(log_url="", capture=True),
        **{name: getattr(loop, name) for name in TABLES if name != "capture"},
    }


def meanings(kind: type) -> dict[str, str]:
    """Return what a class's docstring says of each argument, on one line."""
    text = inspect.getdoc(kind) or ""
    part = text.split("Args:\n")[1].split("\n\n")[0]
    pieces = _ARGUMENT.split(part)[1:]
    return {name: " ".join(said.split()) for name, said in zip(pieces[::2], pieces[1::2], strict=True)}


def tables() -> Iterator[str]:
    """Yield the lines of all tables."""
    for table, default in classes().items():
        said = meanings(type(default))
        yield f"\n### {_TITLES[table]}\n\n| name | type | default | meaning |\n|---|---|---|---|\n"
        for one in fields(default):
            if one.name in _WITHOUT.get(table, ()):
                continue
            if one.default is MISSING and one.default_factory is MISSING:
                raise ValueError(f"{one.name} has no default")
            kind = _CHOICES.get(str(one.type), str(one.type).replace("|", "or"))
            meaning = said[one.name].replace("``", "`").replace("|", "\\|")
            yield f"| `{one.name}` | {kind} | {_shown(getattr(default, one.name))} | {meaning} |\n"


def _shown(value: Any) -> str:
    """Return a default as TOML writes it, "" for None."""
    if value is None:
        return ""
    if isinstance(value, (bool, str)):
        return f"`{json.dumps(value)}`"
    return f"`{list(value) if isinstance(value, tuple) else value}`"


def updated(page: str) -> str:
    """Return the page with its tables as the classes are now."""
    before, rest = page.split(_BEGIN)
    return before + _BEGIN + "".join(tables()) + "\n" + _END + rest.split(_END)[1]


if __name__ == "__main__":
    _PAGE.write_text(updated(_PAGE.read_text(encoding="utf-8")), encoding="utf-8")
