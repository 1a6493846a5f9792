"""Towers trained with other losses: each is another loss, and a run can be continued."""

import json

import numpy as np
import pytest
import torch
import tower_ablation

from hins_memory.training.tower.stored_loss import StoredVectorsLoss
from hins_memory.training.tower.targets import Target


class _Vectors:
    def __init__(self, vectors):
        self._vectors = vectors

    def vectors(self, target):
        return self._vectors


@pytest.fixture
def of_row():
    draw = np.random.default_rng(0)
    vectors = draw.normal(size=(7, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    query = torch.nn.functional.normalize(torch.from_numpy(draw.normal(size=8).astype(np.float32)), dim=0)
    rows = np.arange(7, dtype=np.int64)
    weights = np.asarray([0.75, 0.25], dtype=np.float32)
    target = Target("what?", 0, rows[:2], weights, rows[2:], height=0.4)
    loss = StoredVectorsLoss(torch.nn.Identity(), _Vectors(vectors), temperature=0.5)
    hard = {("what?", 5): np.asarray([True, False, False, False, False])}

    def value(row, target=target):
        return float(tower_ablation._loss_of(row, hard)(loss, query, target))

    return value, target


def test_every_row_is_a_loss_of_its_own(of_row):
    value, _ = of_row
    values = [value(row) for row in tower_ablation.ROWS]
    assert len({round(one, 4) for one in values}) == len(values)
    assert np.isfinite(values).all()


def test_weights_of_1_on_every_negative_are_ours(of_row, monkeypatch):
    value, _ = of_row
    monkeypatch.setattr(tower_ablation, "_TIER_WEIGHT", 1.0)
    monkeypatch.setattr(tower_ablation, "_HARDNESS", 0.0)
    for row in ("hard_tier", "other_topic", "hardness"):
        assert value(row) == pytest.approx(value("ours"), abs=1e-4), row


def test_one_positive_has_the_same_loss_however_positives_are_weighted(of_row):
    value, target = of_row
    alone = Target("what?", 0, target.positives[:1], np.ones(1, dtype=np.float32), np.arange(1, 7), height=0.4)
    for row in ("surest", "equal", "listwise"):
        assert value(row, alone) == pytest.approx(value("ours", alone), abs=1e-4), row


@pytest.mark.slow
@pytest.mark.usefixtures("shallow_stock")
def test_a_quick_run_compares_losses_and_a_second_one_trains_nothing(tiny_file, tmp_path, monkeypatch):
    result = tmp_path / "result.json"
    arguments = ["--data", str(tiny_file), "--work", str(tmp_path / "work"), "--quick", "--json", str(result)]
    assert tower_ablation.main(arguments) == 0
    found = json.loads(result.read_text(encoding="utf-8"))
    rows = {row["loss"]: row for row in found["rows"]}
    assert set(rows) == {"ours", "listwise", "hard_tier"}
    assert found["figures"]["listwise_minus_ours"] == pytest.approx(rows["listwise"]["ndcg10"] - rows["ours"]["ndcg10"])
    monkeypatch.setattr(tower_ablation, "train_tower", None)
    assert tower_ablation.main(arguments) == 0
    assert json.loads(result.read_text(encoding="utf-8")) == found
