"""Training on a small real task: it learns, is repeatable, and fails with a clear error."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from train_world import examples, quick

from hins_memory.errors import NotEnoughDataError, TrainingError
from hins_memory.training import TrainSettings, train_encoder


def settings(**changes) -> TrainSettings:
    return quick(**{"mode": "lora", "learning_rate": 0.0, "epochs": 1.0, "min_steps": 1, **changes})


def margin(model: SentenceTransformer) -> float:
    rows = examples()
    queries, positives, negatives = (
        model.encode(texts, normalize_embeddings=True)
        for texts in (
            [row.positive.query for row in rows],
            [row.positive.text for row in rows],
            [row.negatives[0].text for row in rows],
        )
    )
    return float(np.mean((queries * positives).sum(1) - (queries * negatives).sum(1)))


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "rate"), [("lora", 1e-3), ("full", 1e-4)])
def test_training_widens_the_margin_and_is_a_plain_folder(tmp_path, stock_encoder, mode, rate):
    steps: list[tuple[int, int]] = []
    result = train_encoder(
        examples(),
        tmp_path / "model",
        settings=settings(mode=mode, learning_rate=rate, epochs=2.0),
        progress=lambda stage, done, total: steps.append((done, total)),
    )
    trained = SentenceTransformer(str(result.folder))
    assert margin(trained) > margin(stock_encoder.model) + 0.02
    assert steps == [(step, 6) for step in range(1, 7)]
    kinds = {path.suffix for path in result.folder.rglob("*") if path.is_file()}
    assert kinds <= {".json", ".safetensors", ".md", ".txt"}
    manifest = json.loads(json.dumps(result.manifest.to_dict()))
    assert manifest["data"]["examples"] == len(examples())
    assert manifest["data"]["tiers"] == {"hard": 24, "medium": 12}
    assert len(manifest["metrics"]["loss"]) == 6
    assert manifest["base"].startswith("all-MiniLM-L6-v2@")


@pytest.mark.slow
def test_same_seed_same_weights_and_another_seed_others(tmp_path, shallow_folder):
    weights = []
    for number, seed in enumerate((1, 1, 2)):
        folder = tmp_path / str(number)
        train_encoder(examples(), folder, base=shallow_folder, settings=settings(seed=seed))
        weights.append((folder / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]
    assert weights[0] != weights[2]


def test_too_few_examples_say_how_many_are_missing(tmp_path):
    with pytest.raises(NotEnoughDataError, match="3 training examples; at least 16"):
        train_encoder(examples()[:3], tmp_path / "model")


def test_a_folder_in_use_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(TrainingError, match="not empty"):
        train_encoder(examples(), tmp_path)


@pytest.mark.slow
def test_a_loss_that_is_no_number_stops_with_advice(tmp_path, shallow_folder):
    diverging = settings(mode="full", learning_rate=1e38, epochs=4.0)
    with pytest.raises(TrainingError, match="Lower the learning rate"):
        train_encoder(examples(), tmp_path / "model", base=shallow_folder, settings=diverging)


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TrainingError, match="Free disk space"):
        train_encoder(examples(), tmp_path / "file" / "model", settings=settings(epochs=0.3))


def test_the_names_of_version_0_2_still_work(tmp_path, tiny_folder):
    import hins_memory.training as training

    with pytest.warns(DeprecationWarning, match="AuxiliaryData"):
        old = training.Samples(traffic=[training.QuerySample(("q",), ("t",))], general_loss=0.5)
    assert old == training.AuxiliaryData([training.QuerySample(("q",), ("t",))], general_loss=0.5)
    with pytest.warns(DeprecationWarning, match="auxiliary="), pytest.raises(NotEnoughDataError):
        train_encoder([], tmp_path / "model", base=tiny_folder, samples=old)
    with pytest.raises(TypeError, match="'sample'"):
        train_encoder([], tmp_path / "model", base=tiny_folder, sample=old)
