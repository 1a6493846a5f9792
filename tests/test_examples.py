"""The example adapter of docs/adapters.md, installed as a third-party package would be, through a whole swap."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from child_process import run_python

from hins_memory.config import Settings
from hins_memory.database.engine import open_database
from hins_memory.log.reader import LogReader
from hins_memory.sdk.captures import leave_capture

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "docs" / "examples" / "hins-adapter-notebook"

_USE = """
import shutil, sys
from pathlib import Path
import hins_memory
from hins_memory.plugins.protocols import Agent, Index
from hins_memory.log.capture import flush_all
from hins_memory.encoders.encoder import resolve_model
from hins_memory.data.sample_conversations import load_sample
from hins_memory.database.engine import open_database
from hins_memory.evaluation.gate import GateSettings
from hins_memory.log.reader import LogReader
from hins_memory.loop.pipeline import LoopSettings, Pipeline
from hins_memory.training import TrainSettings
from hins_memory.plugins.manager import broken_plugins, get_plugin_manager
from hins_memory.registry.registry import Registry
from notebook import Notebook

home = Path(sys.argv[1])
home.mkdir()
assert broken_plugins() == {}
assert get_plugin_manager().has_plugin("notebook")
settings = hins_memory.Settings(home=home, project="test", log_url="")
def unused(texts):
    raise AssertionError("the notebook embeds by itself")
def opened():
    return hins_memory.attach(Notebook(str(home / "notes.db"), "ann", unused), embedder="hins", settings=settings)
book = opened()
assert isinstance(book.hins, Agent) and isinstance(book.hins.live_indexes()[0], Index)
stock = book.hins.encoder_version
notes = ["Ann plays the cello.", "The garden needs water.", "雪球 is a cat. 🐈"]
ids = [book.add(note) for note in notes]
assert book.search("Which instrument?", 1)[0][:2] == (ids[0], notes[0])
flush_all()
log, = LogReader(open_database(settings.database_url)).scope_logs()
assert [memory.text for memory in log.memories] == notes and log.retrievals[0].results[0].memory_id == ids[0]
shutil.copytree(resolve_model("stock"), home / "copy")
version = Registry(settings).add(home / "copy", {"base": "stock"}).id
report = Pipeline(settings, book).swap(force=True)
assert (report.version, report.previous, report.indexes[0].vectors_checked) == (version, stock, 3)
late = book.add("Ann bought a red bicycle.")
again = opened()
assert again.hins.encoder_version == version and again.search("red bicycle", 1)[0][0] == late
assert Pipeline(settings, book).rollback().version == stock
assert book.hins.live_indexes()[0].count() == 4 and book.search("red bicycle", 1)[0][0] == late
assert len(Pipeline(settings, book).retire()) == 1
for one in load_sample()[:2]:
    for turn in one.turns:
        book.add(f"{turn.speaker}: {turn.text}", one.id)
    for asked in one.questions:
        with book.hins.turn() as turn:
            book.search(asked.question, 20)
            turn.answered(asked.answer)
loop = LoopSettings(
    train=TrainSettings(mode="query"),
    gate=GateSettings(held_out_share=0.2, min_queries=5, skills=("preference",)),
)
report = Pipeline(settings, book, loop=loop).run()
# So few questions prove nothing; whatever the gate says of them, the new version can be swapped in.
if not report.swapped:
    assert report.gate.failures and Pipeline(settings, book).swap(report.version, force=True).changed
assert book.hins.encoder_version == report.version and book.search("red bicycle", 1)[0][0] == late
hins_memory.detach(book)
assert not hasattr(book, "hins") and "search" not in vars(book)
print("DONE")
"""


def test_capture_alone_takes_thirty_lines(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLE))
    monkeypatch.setenv("HINS_HOME", str(settings.home))
    from capture_only import record_use
    from notebook import Notebook

    def embed(texts: list[str]) -> np.ndarray:
        return np.eye(3, dtype=np.float32)[: len(texts)]

    book = Notebook(str(tmp_path / "notes.db"), "ann", embed)
    recorder = record_use(book)
    note = book.add("Ann plays the cello.", "music")
    with recorder.turn() as turn:
        assert book.search("Which instrument?")[0][0] == note
        turn.answered("The cello.")
    leave_capture(Settings(), book)
    (log,) = LogReader(open_database(Settings().database_url)).scope_logs()
    assert (log.memories[0].id, log.memories[0].conversation) == (note, "music")
    assert log.answers[0].retrieval_id == log.retrievals[0].id
    assert len((EXAMPLE / "capture_only.py").read_text(encoding="utf-8").splitlines()) <= 32


def test_the_guide_shows_the_examples_as_they_are() -> None:
    guide = (ROOT / "docs" / "adapters.md").read_text(encoding="utf-8")
    for name in ("capture_only.py", "hins_adapter_notebook.py"):
        assert (EXAMPLE / name).read_text(encoding="utf-8") in guide


@pytest.mark.slow
def test_the_example_works_as_an_installed_package(
    tmp_path: Path, first_layer_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("setuptools")
    source, site = tmp_path / "source", tmp_path / "site"
    shutil.copytree(EXAMPLE, source)
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*install, "--target", str(site), str(source)], check=True, timeout=600)
    monkeypatch.setenv("HINS_BASE", str(first_layer_folder))
    installed = """import pytest, sys; sys.path.insert(0, sys.argv.pop())
from few_texts import take_few; take_few(pytest.MonkeyPatch())
"""
    done = run_python(installed + _USE, str(tmp_path / "home"), str(site))
    assert done.stdout.endswith("DONE\n"), done.stderr
