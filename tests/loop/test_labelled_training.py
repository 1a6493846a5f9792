"""Training and evaluation on labelled questions, without an agent: from Python and from the command line."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

import hins_memory
from hins_memory.cli import app
from hins_memory.config import Settings
from hins_memory.data.sample_conversations import load_sample
from hins_memory.encoders.encoder import Encoder
from hins_memory.errors import NotEnoughDataError, TrainingError
from hins_memory.evaluation.gate import GateSettings
from hins_memory.loop.labelled import labelled_sets, mine_labelled, train_version
from hins_memory.loop.settings import LoopSettings
from hins_memory.mining import MineSettings
from hins_memory.training import TrainSettings

pytestmark = pytest.mark.usefixtures("shallow_stock")


def rows_of(count):
    rows = []
    for one in load_sample()[:count]:
        turns = {turn.id: turn for turn in one.turns}
        rows += [
            {"positive": turn.text, "speaker": turn.speaker, "conversation": one.id, "user": one.id}
            for turn in one.turns
        ]
        rows += [
            {
                "query": asked.question,
                "positive": turns[name].text,
                "speaker": turns[name].speaker,
                "conversation": one.id,
                "user": one.id,
            }
            for asked in one.questions
            for name in asked.evidence
        ]
    return rows


@pytest.mark.slow
def test_labels_become_examples_with_tiers():
    found = mine_labelled(rows_of(2), Encoder.load())
    assert set(found.report.positives) == {"feedback"}
    assert all(found.report.negatives[tier] for tier in ("easy", "medium", "hard"))
    assert {one.scope.user for one in found.examples} == {one.id for one in load_sample()[:2]}


def test_sets_hold_every_text_of_their_user():
    first = load_sample()[0]
    (found,) = labelled_sets(rows_of(1))
    assert set(found.documents.values()) == {turn.text for turn in first.turns}
    assert len(found.queries) == len({asked.question for asked in first.questions})
    with pytest.raises(NotEnoughDataError, match="No row has a query"):
        labelled_sets([{"positive": "a"}])


@pytest.mark.slow
def test_too_few_and_a_full_folder_are_clear_errors(tmp_path):
    with pytest.raises(NotEnoughDataError, match="at least 16"):
        hins_memory.train_encoder(rows_of(1)[-3:], tmp_path / "new", base="stock")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(TrainingError, match="not empty"):
        hins_memory.train_encoder(rows_of(1), tmp_path / "full", base="stock")


@pytest.mark.slow
def test_an_encoder_learns_from_labels(tmp_path):
    rows = rows_of(2)
    quick = TrainSettings(mode="query")
    trained = hins_memory.train_encoder(rows, tmp_path / "model", base="stock", settings=quick)
    assert Encoder.load(trained.folder).encode(["a text"]).shape == (1, 64)
    found = hins_memory.compare_encoders(rows, {"before": "stock", "after": trained.folder})
    assert found.gains["after"].low > 0
    assert found.to_dict()["after"]["gain"]["queries"] == len(found.scores["after"].mrr)


@pytest.mark.slow
def test_a_version_from_labels_follows_the_settings_of_all_stages(tmp_path, tiny_folder):
    loop = LoopSettings(
        mine=MineSettings(negatives=1, guard=None, duplicate_similarity=1.0),
        train=TrainSettings(mode="query", epochs=0.1, min_steps=1, replay=0.0),
        gate=GateSettings(max_general_loss=0.5),
        base=str(tiny_folder),
    )
    manifest = train_version(rows_of(1), Settings(home=tmp_path), loop).manifest
    assert manifest.scores["general"]["allowed"] == pytest.approx(0.45)
    assert sum(manifest.data.tiers.values()) == manifest.data.examples > 0


@pytest.mark.slow
def test_the_command_line_trains_and_evaluates(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows_of(1)), encoding="utf-8")

    def hins(*arguments):
        done = CliRunner().invoke(app, ["--home", str(tmp_path / "home"), *map(str, arguments), "--json"])
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    trained = hins("train", "--from", path, "--base", "stock", "--mode", "query")
    assert trained["manifest"]["data"]["sources"].keys() == {"feedback", "replay"}
    found = hins("evaluate", "--questions", path, "--encoder", "stock", "--encoder", trained["version"])
    assert set(found) == {"stock", trained["version"]}
    assert 0 <= found[trained["version"]]["ndcg@10"] <= 1
    assert found[trained["version"]]["gain"]["low"] <= found[trained["version"]]["gain"]["high"]
