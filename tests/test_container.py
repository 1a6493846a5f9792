"""The container's files are what linters want; no engine of containers runs in these tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
STYLE = "{extends: default, rules: {line-length: {max: 120}, document-start: disable}}"


@pytest.mark.parametrize(
    "command",
    [
        ["hadolint", "Dockerfile"],
        ["check-jsonschema", "--builtin-schema", "vendor.compose-spec", "compose.yaml"],
        ["yamllint", "--strict", "-d", STYLE, "compose.yaml"],
    ],
    ids=lambda command: command[0],
)
def test_the_containers_files_pass_their_linters(command):
    program = Path(sys.executable).with_name(command[0])
    if not program.is_file():
        pytest.skip(f"needs {command[0]}")
    done = subprocess.run([program, *command[1:]], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_the_image_copies_is_let_into_its_context():
    copied = [
        name
        for line in (ROOT / "Dockerfile").read_text().splitlines()
        if line.startswith("COPY ") and "--from" not in line
        for name in line.split()[1:-1]
    ]
    assert copied
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert set(copied) == allowed
    assert all((ROOT / name).exists() for name in copied)
