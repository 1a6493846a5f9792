"""The reference of the command line has the options that there are."""

from __future__ import annotations

import runpy

from pages import ROOT


def test_the_reference_of_the_command_line_is_up_to_date() -> None:
    tool = runpy.run_path(str(ROOT / "tools" / "site" / "cli_reference.py"))
    page = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    assert tool["updated"](page) == page, "run: python tools/site/cli_reference.py"


def test_a_new_command_gets_a_section() -> None:
    tool = runpy.run_path(str(ROOT / "tools" / "site" / "cli_reference.py"))
    written = tool["updated"]("# The command line\n")
    assert written.count("\n## hins ") == len(tool["commands"]())
    assert "| `--resume` |" in written
