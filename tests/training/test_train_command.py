"""`hins train` itself: cut and continued, with its page, and under torchrun."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from train_world import checkpoint_every, quick
from typer.testing import CliRunner

from hins_memory.cli import app
from hins_memory.config import Settings
from hins_memory.data.sample_conversations import SampleConversation, load_sample
from hins_memory.database.engine import open_database
from hins_memory.evaluation.gate import GateSettings
from hins_memory.log.writer import LogWriter
from hins_memory.loop.pipeline import LoopSettings, Pipeline
from hins_memory.types import Event, Feedback, Memory, RankedMemory, Retrieval, Scope


def traffic(conversation: SampleConversation) -> Iterator[Event]:
    """Everything said is stored; every question finds what answers it among other memories, and is liked."""
    scope, start = Scope(user=conversation.id), conversation.sessions[0].time
    texts = {turn.id: f"{turn.speaker}: {turn.text}" for turn in conversation.turns}
    for number, turn in enumerate(conversation.turns):
        name = f"{conversation.id} {turn.id}"
        yield Memory(name, scope, conversation.id, texts[turn.id], turn.speaker, time=start + number)
    for number, question in enumerate(conversation.questions):
        ranked = list(dict.fromkeys([*question.evidence, *list(texts)[:10]]))
        results = [RankedMemory(f"{conversation.id} {one}", texts[one], 1.0 / (1 + i)) for i, one in enumerate(ranked)]
        time = start + 10_000 + number
        asked = Retrieval(scope, question.question, tuple(results), time=time, id=f"{conversation.id} {number}")
        yield asked
        yield Feedback(results[0].memory_id, "POSITIVE", asked.id, time=time + 1)


@pytest.fixture
def project(settings: Settings) -> Settings:
    events = [event for one in load_sample()[:4] for event in traffic(one)]
    LogWriter(open_database(settings.database_url)).write(events)
    return settings


def hins(settings: Settings, *arguments: object, code: int = 0) -> str:
    options = ["--home", str(settings.home), "--project", settings.project]
    result = CliRunner().invoke(app, [*options, *map(str, arguments)], env={"COLUMNS": "200"})
    assert result.exit_code == code, (result.output, result.exception)
    # progress bars are on stderr
    return result.stdout if "--json" in arguments else result.output


def test_nothing_to_continue_and_options_of_another_run_are_refused(settings):
    assert "no unfinished training" in hins(settings, "train", "--resume", code=7)
    assert "--mode, --seed" in hins(settings, "train", "--resume", "--mode", "full", "--seed", 3, code=2)
    assert "patience" in hins(settings, "train", "--patience", -1, code=2)


@pytest.mark.slow
@pytest.mark.usefixtures("shallow_base")
def test_a_training_that_is_cut_is_continued_from_the_command_line(project, tmp_path, monkeypatch):
    checkpoint_every(2, monkeypatch.setattr)
    monkeypatch.setattr("hins_memory.training.settings._EVALUATIONS", 2)

    def cut(stage: str, done: int, total: int) -> None:
        if (stage, done) == ("train", 5):
            raise KeyboardInterrupt

    train = quick(mode="lora", patience=3, epochs=0.1, min_steps=8, batch_size=4)
    loop = LoopSettings(gate=GateSettings(held_out_share=0.2, min_queries=5), train=train)
    with pytest.raises(KeyboardInterrupt):
        Pipeline(project, loop=loop, progress=cut).train()
    # what is logged meanwhile makes no difference
    LogWriter(open_database(project.database_url)).write(list(traffic(load_sample()[4])))
    page = tmp_path / "run.html"
    trained = json.loads(hins(project, "train", "--resume", "--report", page, "--json"))
    manifest = trained["manifest"]
    assert manifest["settings"]["patience"] == 3
    assert len(manifest["metrics"]["loss"]) <= manifest["settings"]["steps"]
    assert "Held-out nDCG@10" in page.read_text(encoding="utf-8")
    assert trained["version"] in page.read_text(encoding="utf-8")
    assert manifest["ratio"]
    assert not any(path.name.startswith("run-") for path in project.training.iterdir())
    assert len(manifest["trained_conversations"]) == len(set(manifest["trained_conversations"]))
    assert Pipeline(project).registry.get(trained["version"]).manifest.run.id.startswith("run-")
    with pytest.raises(KeyboardInterrupt):
        Pipeline(project, loop=loop, progress=cut).train()
    assert any(path.name.startswith("run-") for path in project.training.iterdir())
    hins(project, "log", "purge", "--user", "nobody", "--yes")
    assert not any(path.name.startswith("run-") for path in project.training.iterdir())


@pytest.mark.slow
@pytest.mark.usefixtures("shallow_base")
def test_two_processes_under_torchrun_make_one_version(project, forked_python):
    command = ["--home", str(project.home), "--project", project.project, "train"]
    done = subprocess.run(
        [
            *(forked_python, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
            *("-m", "hins_memory", *command, "--epochs", "0.1", "--batch-size", "4", "--json"),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    trained = json.loads(done.stdout)
    assert trained["manifest"]["run"]["hardware"]["processes"] == 2
    assert (Path(trained["path"]) / "model.safetensors").is_file()
    assert [one.id for one in Pipeline(project).registry.versions()] == [trained["version"]]
