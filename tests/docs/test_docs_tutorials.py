"""The tutorials' blocks are run, from the first to the last: Python in one namespace, and what `hins` is told to do."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from llm_server import LLMServer
from pages import ROOT, Block, blocks
from postgresql import postgresql_schema
from typer.testing import CliRunner

from hins_memory.cli import app
from hins_memory.encoders.encoder import Encoder
from hins_memory.log.capture import flush_all
from hins_memory.registry.loader import shared_encoder

TUTORIALS = ROOT / "docs" / "tutorials"
#: What a stand-in of a language model replies to MemoryOS's prompts, by what is in them.
REPLIES = {
    "conversation continuity detector": "false",
    "conversation meta-summary updater": "They talk.",
    "expert in keyword extraction": "music, cello",
    "expert in analyzing dialogue topics": [{"theme": "talk", "keywords": ["music"], "content": "The user plays."}],
}


@pytest.fixture(scope="module")
def loaded(shallow_folder: Path) -> Encoder:
    """The shallow encoder, which the pages' tests share with the vectors of its texts: the pages store the same."""
    return shared_encoder(shallow_folder)


@pytest.fixture
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shallow_stock: Path, loaded: Encoder) -> Iterator[Path]:
    """A working folder and a home for projects, both empty; a shallow encoder is the stock one and the starter.

    The pages say no figure that a better one would give; what the starter finds has tests of its own.
    """
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HINS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HINS_BASE", str(shallow_stock))
    monkeypatch.setattr(Encoder, "starter", lambda name="starter", *, device=None: loaded)
    yield tmp_path
    flush_all()


def run(page: str) -> None:
    path = TUTORIALS / f"{page}.md"
    namespace: dict[str, object] = {"__name__": "tutorial"}
    executed = 0
    for block in blocks(path):
        if block.skipped:
            continue
        if block.language == "python":
            # The page's own line numbers, for whoever reads the traceback.
            exec(compile("\n" * (block.line - 1) + block.text, str(path), "exec"), namespace)
            executed += 1
        elif block.language == "console":
            _commands(block)
    assert executed >= 2, f"{page} has hardly any block that is run"


def _commands(block: Block) -> None:
    for line in re.findall(r"^\$ hins (.*)$", block.text, re.MULTILINE):
        if line != "doctor":  # which says 1 where an optional framework is broken
            done = CliRunner().invoke(app, shlex.split(line))
            assert done.exit_code == 0, f"hins {line}: {done.output}"


@pytest.mark.slow
def test_mem0(somewhere: Path) -> None:
    run("mem0")


@pytest.mark.slow
def test_memoryos(somewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("memoryos")
    with LLMServer(REPLIES, default="You play the cello.") as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "loopback")
        run("memoryos")


@pytest.mark.slow
def test_labelled_data(somewhere: Path) -> None:
    run("labelled-data")


@pytest.mark.slow
def test_own_base(somewhere: Path) -> None:
    run("own-base")


@pytest.mark.slow
def test_production(somewhere: Path, monkeypatch: pytest.MonkeyPatch, postgresql_server: str) -> None:
    monkeypatch.setenv("HINS_LOG_URL", postgresql_schema(postgresql_server, "tutorial"))
    run("production")
