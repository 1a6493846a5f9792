"""GitHub's workflows are what GitHub's schema and a linter want."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted(map(str, (ROOT / ".github" / "workflows").glob("*.yml")))


@pytest.mark.skipif(not WORKFLOWS, reason="a source distribution has no workflows")
@pytest.mark.parametrize(
    "command",
    [
        ["check-jsonschema", "--builtin-schema", "vendor.github-workflows"],
        ["yamllint", "--strict", "-d", "{extends: default, rules: {line-length: {max: 120}, document-start: disable}}"],
    ],
    ids=lambda command: command[0],
)
def test_the_workflows_pass_their_linters(command):
    program = Path(sys.executable).with_name(command[0])
    if not program.is_file():
        pytest.skip(f"needs {command[0]}")
    done = subprocess.run([program, *command[1:], *WORKFLOWS], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
