"""`hins synthesize` and what the pipeline makes of synthetic data."""

import json
from pathlib import Path

import pytest
from llm_server import LLMServer
from synthesis_corpus import write_corpus
from test_synthesize_model import RULES
from typer.testing import CliRunner

from hins_memory.cli import app
from hins_memory.config import Settings
from hins_memory.database.engine import open_database
from hins_memory.errors import NotEnoughDataError
from hins_memory.log.reader import LogReader
from hins_memory.loop.pipeline import LoopSettings, Pipeline
from hins_memory.mining import MineSettings
from hins_memory.training.settings import TrainSettings

pytestmark = pytest.mark.slow


def run(settings: Settings, *arguments: object, code: int = 0) -> dict:
    options = ["--home", str(settings.home), "--project", settings.project, "synthesize"]
    result = CliRunner().invoke(app, [*options, *map(str, arguments), "--json"], env={"OPENAI_API_KEY": ""})
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "talks.csv", copies=9)


def test_rules_fill_a_log_that_trains_a_version(corpus: Path, settings: Settings, tiny_folder: Path) -> None:
    report = run(settings, "--corpus", corpus, "--questions", 24)
    assert report["source"] == "rules"
    assert report["conversations"] == 3
    assert 16 <= report["questions"] <= 24
    again = run(settings, "--corpus", corpus, "--questions", 24)
    assert again == report
    assert LogReader(open_database(settings.database_url)).counts().retrievals == report["questions"]
    train = TrainSettings(epochs=1.0, min_steps=1, lora_rank=2, max_tokens=24)
    # A tiny base has hardly any distances to go by, so nothing is guarded.
    mine = MineSettings(guard=None, duplicate_similarity=1.0)
    pipeline = Pipeline(settings, loop=LoopSettings(mine=mine, train=train, base=str(tiny_folder)))
    version = pipeline.train()
    mixed = version.manifest.mix
    assert mixed["captured"] == 0
    sources = version.manifest.data.sources
    assert mixed["synthetic"] == mixed["synthetic_available"] == sources["synthesis"] > 0
    assert sources.keys() == {"synthesis", "replay"}
    # What was made up proves nothing: the gate wants captured traffic.
    with pytest.raises(NotEnoughDataError):
        pipeline.gate(version.id)


def test_the_language_model_writes_and_a_second_run_asks_nothing(settings: Settings) -> None:
    with LLMServer(RULES) as server:
        arguments = ("--llm", "openai:loopback", "--base-url", server.base_url, "--personas", 2, "--conversations", 2)
        report = run(settings, *arguments)
        asked = len(server.requests)
        assert report["conversations"] == 2
        assert report["source"] == "loopback"
        assert f"{asked} requests" in report["notes"][-1]
        again = run(settings, *arguments)
        assert len(server.requests) == asked
    assert again["questions"] == report["questions"] > 0
    assert LogReader(open_database(settings.database_url)).counts().retrievals == report["questions"]


def test_a_budget_is_said(settings: Settings) -> None:
    with LLMServer(RULES) as server:
        arguments = ("--llm", "openai:loopback", "--base-url", server.base_url, "--personas", 2, "--max-requests", 4)
        report = run(settings, *arguments)
    assert report["conversations"] == 0
    assert any("4 requests" in note for note in report["notes"])


def test_wrong_options_are_sentences(settings: Settings, tmp_path: Path) -> None:
    assert "not a writer" in run(settings, "--llm", "gpt", code=2)["error"]["problem"]
    assert "cannot be read" in run(settings, "--corpus", tmp_path / "none.csv", code=2)["error"]["problem"]
    assert "two speakers" in run(settings, code=3)["error"]["problem"]
