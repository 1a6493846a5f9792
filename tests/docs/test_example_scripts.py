"""Every script in examples/ runs to its end and prints what it should."""

from __future__ import annotations

import csv
import runpy
from collections.abc import Callable
from pathlib import Path

import pytest
from pages import ROOT

from hins_memory.data.sample_conversations import load_sample
from hins_memory.log.capture import flush_all

EXAMPLES = ROOT / "examples"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HINS_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def main_of(name: str) -> Callable[..., None]:
    return runpy.run_path(str(EXAMPLES / name))["main"]


def test_every_example_has_a_test() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    assert {path.name for path in EXAMPLES.glob("*.py") if f'"{path.name}"' not in text} == set()


def test_capture_only(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main_of("capture_only.py")()
    assert capsys.readouterr().out == "2 turns, 2 memories, 1 searches, 1 answers\n"


@pytest.mark.slow
def test_mem0_quickstart(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main_of("mem0_quickstart.py")()
    said = capsys.readouterr().out.splitlines()
    assert "oboe" in said[0]
    assert said[-1] == "3 memories, 1 searches, 1 answers, 1 feedback"
    flush_all()


@pytest.mark.slow
def test_own_base(home: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main_of("own_base.py")([str(tiny_folder)])
    said = capsys.readouterr().out.splitlines()
    assert ": 32 dimensions, version " in said[0]
    assert said[1] == "Ann plays the oboe."
    flush_all()


@pytest.mark.slow
@pytest.mark.usefixtures("shallow_stock")
def test_labelled_data(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, one in zip(("train.csv", "test.csv"), load_sample(), strict=False):
        turns = {turn.id: turn for turn in one.turns}
        rows = [("", turn.text, turn.speaker, one.id) for turn in one.turns]
        rows += [
            (asked.question, turns[id].text, turns[id].speaker, one.id)
            for asked in one.questions
            for id in asked.evidence
        ]
        with (home / name).open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows([("query", "positive", "speaker", "conversation"), *rows])
    main_of("labelled_data.py")(["train.csv", "test.csv", "my-encoder", "--base", "stock", "--mode", "query"])
    said = capsys.readouterr().out
    assert said.startswith("before   nDCG@10 ")
    assert "95%)" in said
    assert (home / "my-encoder" / "modules.json").is_file()
