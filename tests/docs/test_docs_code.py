"""Blocks of code in the documentation can be read: Python compiles, JSON and TOML parse, `hins` knows its options."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import typer
from pages import PAGES, blocks, name_of

from hins_memory.cli import app

WITH_CODE = [page for page in PAGES if "```" in page.read_text(encoding="utf-8")]
#: Languages that blocks may have; "" is a text that is not code.
LANGUAGES = {"", "console", "json", "python", "toml"}


@pytest.mark.parametrize("page", WITH_CODE, ids=name_of)
def test_blocks_are_of_a_known_language_and_can_be_read(page: Path) -> None:
    for block in blocks(page):
        assert block.language in LANGUAGES, f"{name_of(page)}:{block.line}"
        if block.language == "python":
            compile(block.text, f"{name_of(page)}:{block.line}", "exec")
        elif block.language == "json":
            json.loads(block.text)
        elif block.language == "toml":
            tomllib = pytest.importorskip("tomllib")
            tomllib.loads(block.text)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_have_the_options_that_they_are_shown_with(page: Path) -> None:
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    # In fenced blocks a line begins with the prompt, in cron's with the times; other blocks are indented.
    for line in re.findall(r"^(?:\$ |    |\*/15 \* \* \* \* +)(hins .*)$", text, re.MULTILINE):
        # What follows -- is another program's.
        words = shlex.split(line.split(" #")[0].split(">>")[0].split(" | ")[0].split(" -- ")[0])[1:]
        assert _unknown(words) == [], f"{name_of(page)}: {line}"


def _unknown(words: list[str]) -> list[str]:
    """Return what of a command line `hins` does not know."""
    command = typer.main.get_command(app)
    known = {option for one in command.params for option in one.opts}
    rest = list(words)
    while rest and hasattr(command, "commands") and not rest[0].startswith("-"):
        name = rest.pop(0)
        if name not in command.commands:
            return [name]
        command = command.commands[name]
        known |= {option for one in command.params for option in one.opts}
    return [word for word in rest if word.startswith("-") and word.split("=")[0] not in known]
