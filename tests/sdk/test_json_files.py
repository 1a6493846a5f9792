"""JSON files of a framework: written in one step, read with care, set aside when they are damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hins_memory.sdk.json_files import DamagedFileError, read_json, set_aside, write_json

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters()), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(st.characters()), _JSON, max_size=3))
def test_what_is_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, document: dict[str, Any]) -> None:
    path = tmp_path_factory.getbasetemp() / "document.json"
    write_json(path, document)
    assert read_json(path, dict) == document
    assert [one.name for one in path.parent.glob(".document*")] == []


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    write_json(path, {"sessions": {}}, durable=True)
    with pytest.raises(TypeError):
        write_json(path, {"sessions": object()})
    blocked = tmp_path / ".m.json.hins-tmp"
    blocked.mkdir()
    with pytest.raises(OSError, match="directory"):
        write_json(path, {"sessions": {"a": 1}})
    blocked.rmdir()
    assert read_json(path, dict) == {"sessions": {}}
    path.chmod(0o640)
    write_json(path, {})
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_damaged_file_is_told_from_a_missing_one(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    assert read_json(path, dict) is None
    for content in (b"", b'{"sessions": {', b"\xff\xfe", b"[]"):
        path.write_bytes(content)
        with pytest.raises(DamagedFileError):
            read_json(path, dict)
    first, second = set_aside(path, "It is broken"), tmp_path / "m.json"
    second.write_bytes(b"again")
    assert first.read_bytes() == b"[]"
    assert set_aside(second, "It is broken").read_bytes() == b"again"
    assert not path.exists()
