"""Mem0's faiss killed at every step of a write: what was acknowledged before is there, and the two files agree."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

CHILD = Path(__file__).with_name("faiss_kill_child.py")
OPERATIONS = ("open", "insert", "update", "payload", "delete", "reset", "drop", "upsert", "remove")


def test_a_kill_at_any_step_leaves_the_rows_before_or_after(tmp_path: Path) -> None:
    command = [sys.executable, str(CHILD), str(tmp_path), *OPERATIONS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    for operation, report in json.loads(done.stdout).items():
        assert report["last"] == {"result": None}
        before, after = report["before"], report["after"]
        assert before["result"] != after["result"] or operation == "open"
        assert len(report["found"]) > 3
        for first, second in report["found"]:
            assert first in (before, after), operation
            assert second == first
