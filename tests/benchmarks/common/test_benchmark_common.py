"""The convention of every benchmark: data files, their digests, and the result as JSON."""

import hashlib
import json
import threading
from pathlib import Path

import pytest

from hins_memory.errors import ConfigError, NotEnoughDataError
from parts.common.command import base_parser, exit_status
from parts.common.files import DataSource, resolve_data
from parts.common.results import write_result
from parts.common.screen import progress


def _source(path: Path, sha256: str) -> DataSource:
    return DataSource(name="data.json", url=path.as_uri(), sha256=sha256, licence="CC0")


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("HINS_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_a_named_file_is_used_as_it_is(tmp_path, home):
    path = tmp_path / "mine.json"
    path.write_text("[]")
    assert resolve_data(path, _source(path, "0" * 64)) == path
    with pytest.raises(ConfigError, match="There is no file"):
        resolve_data(tmp_path / "absent.json", _source(path, "0" * 64))


def test_a_download_is_checked_and_kept(tmp_path, home):
    origin = tmp_path / "origin.json"
    origin.write_bytes(b"[1]")
    source = _source(origin, hashlib.sha256(b"[1]").hexdigest())
    target = resolve_data(None, source)
    assert target == home / "benchmarks" / "data.json"
    assert target.read_bytes() == b"[1]"
    origin.unlink()
    assert resolve_data(None, source) == target
    target.write_bytes(b"damaged")
    with pytest.raises(ConfigError, match="--data FILE"):
        resolve_data(None, source)


def test_a_download_with_a_wrong_digest_is_not_kept(tmp_path, home):
    origin = tmp_path / "origin.json"
    origin.write_bytes(b"[2]")
    with pytest.raises(ConfigError, match="expected 0000"):
        resolve_data(None, _source(origin, "0" * 64))
    assert not (home / "benchmarks").exists() or not list((home / "benchmarks").iterdir())


def test_the_result_has_its_four_parts(tmp_path):
    path = tmp_path / "folder" / "result.json"
    path.parent.mkdir()
    path.write_text("the result of an earlier run")
    result = write_result(path, {"gain": 1.5}, [{"category": "1"}], {"data": Path("/home/ann/x.json"), "seed": 3})
    assert json.loads(path.read_text(encoding="utf-8")) == result
    assert result["figures"] == {"gain": 1.5}
    assert result["rows"] == [{"category": "1"}]
    assert result["settings"] == {"data": "x.json", "seed": 3}
    assert "torch" in result["versions"]
    assert [one.name for one in path.parent.iterdir()] == ["result.json"]


def test_every_benchmark_has_the_same_arguments():
    arguments = base_parser("a benchmark").parse_args(["--seed", "4", "--quick", "--json", "x.json"])
    assert (arguments.seed, arguments.quick, arguments.json) == (4, True, Path("x.json"))


def test_our_errors_become_exit_statuses(capsys):
    def fail() -> None:
        raise NotEnoughDataError("There are 2 pairs.", "Ask more.")

    assert exit_status(fail) == NotEnoughDataError.exit_code
    assert "There are 2 pairs. Ask more." in capsys.readouterr().err
    assert exit_status(lambda: None) == 0


def test_a_loop_that_is_left_in_the_middle_leaves_no_thread_to_wait_for():
    before = set(threading.enumerate())
    begun = progress(range(3), "counting")
    assert next(begun) == 0
    assert set(threading.enumerate()) == before
    assert list(begun) == [1, 2]
