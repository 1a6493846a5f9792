"""The check of what the adapters' frameworks have released."""

import sys
from pathlib import Path

import pytest
import upstream

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PYPROJECT = tomllib.loads((Path(upstream.__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))


def test_every_framework_has_a_range_with_an_end_and_tests_that_exist():
    for name, (versions, tests) in upstream.ranges(PYPROJECT).items():
        assert any(one.operator in ("<", "==") for one in versions), name
        assert all((Path(upstream.__file__).parents[1] / one).is_dir() for one in tests.split())


def test_what_left_its_range_is_named_with_what_to_run():
    lines = upstream.check(PYPROJECT, lambda name: "99.0" if name == "mem0ai" else _inside(name))
    assert len(lines) == 1
    assert "mem0ai 99.0 is outside of the range <3,>=2.0" in lines[0]
    assert "pip install mem0ai==99.0 &&" in lines[0]
    assert "tests/adapters/mem0 tests/stores" in lines[0]
    (line,) = upstream.check(PYPROJECT, lambda name: "2027.1.1" if name.startswith("@") else _inside(name))
    assert "npm install @modelcontextprotocol/server-memory@2027.1.1 && .venv/bin/pytest" in line
    assert upstream.check(PYPROJECT, _inside) == []


def test_the_page_names_what_no_extra_installs_with_a_version_in_the_range():
    page = (Path(upstream.__file__).parents[1] / "docs/adapters.md").read_text(encoding="utf-8")
    for name in upstream.APART:
        assert f"{name.rpartition('/')[2]} {_inside(name)}" in page


def _inside(name):
    versions, _ = upstream.ranges(PYPROJECT)[name]
    return next(one.version for one in versions if one.operator == ">=")


def test_the_newest_version_is_read_from_what_pip_prints():
    printed = "mem0ai (2.2.1)\nAvailable versions: 2.2.1, 2.2.0\n  INSTALLED: 2.1.0\n  LATEST:    2.2.1\n"
    assert upstream.parse_newest(printed) == "2.2.1"
    with pytest.raises(ValueError, match="no version"):
        upstream.parse_newest("ERROR: no matching distribution")
