"""A digest that is remembered: of the same bytes, until the file is another."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from hins_memory.common import files
from hins_memory.common.files import file_digest, known_digest


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were read."""
    read: list[Path] = []
    monkeypatch.setattr(files, "file_digest", lambda path: read.append(path) or file_digest(path))
    return read


def test_a_digest_is_remembered_until_the_file_changes(
    tmp_path: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, link = tmp_path / "weights", tmp_path / "link"
    path.write_bytes(b"one")
    link.symlink_to(path)
    later = time.time_ns() + 10**10
    monkeypatch.setattr(files.time, "time_ns", lambda: later)
    assert known_digest(path) == known_digest(link) == known_digest(path) == file_digest(path)
    assert len(reads) == 1
    # The same size, and the time of before.
    before = path.stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert known_digest(path) == file_digest(path)
    shutil.copy2(path, tmp_path / "other")
    (tmp_path / "other").write_bytes(b"six")
    (tmp_path / "other").replace(path)
    assert known_digest(path) == file_digest(path)
    assert len(reads) == 3


def test_a_file_that_was_written_just_now_is_read_again(tmp_path: Path, reads: list[Path]) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"one")
    assert known_digest(path) == known_digest(path) == file_digest(path)
    assert len(reads) == 2
