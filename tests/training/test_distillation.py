"""Distillation: general text keeps the vectors that the base gives it, and counts for nothing where it has them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from train_world import batch_columns, examples, quick

from hins_memory.encoders.encoder import Encoder
from hins_memory.errors import ConfigError, TrainingError
from hins_memory.training import AuxiliaryData, train_encoder
from hins_memory.training.fit.replay import general_texts
from hins_memory.training.loss.distillation import DistilledLoss, with_kept
from hins_memory.training.loss.loss import TieredInfoNCELoss

TEXTS = ["The tides follow the moon.", "Copper turns green in the rain.", "A sonnet has fourteen lines."]


@pytest.mark.parametrize(("rows", "often"), [(7, [2, 2, 3]), (2, [1, 1])])
def test_each_row_has_a_text_and_each_text_is_used_as_often(rows: int, often: list[int]) -> None:
    found, texts = with_kept(Dataset.from_dict({"query": ["q"] * rows, "positive": ["p"] * rows}), TEXTS, seed=0)
    assert found.column_names == ["query", "positive", "kept", "label"]
    assert set(texts) <= set(TEXTS)
    assert len(texts) == len(often)
    assert all(row["kept"] == texts[row["label"]] for row in found)
    assert sorted(Counter(found["label"]).values()) == often


def test_half_a_character_is_no_reason_to_stop() -> None:
    found, texts = with_kept(Dataset.from_dict({"query": ["q"], "positive": ["p"]}), ["a \ud83d b"], seed=0)
    assert found["kept"] == texts == [texts[0].encode("utf-8").decode("utf-8")]


@torch.no_grad()
def test_what_is_as_it_was_costs_nothing_and_what_moved_does(tiny_folder: Path) -> None:
    model = Encoder.load(tiny_folder).model.eval()
    plain = TieredInfoNCELoss(model)
    loss = DistilledLoss(model, plain, TEXTS, 2.0)
    columns = batch_columns(model)
    rows = len(columns[0]["input_ids"])
    labels = torch.arange(rows) % len(TEXTS)
    general = model.preprocess([TEXTS[label] for label in labels.tolist()])
    assert float(loss([*columns, general], labels)) == pytest.approx(float(plain(columns)), abs=1e-4)
    loss.vectors.neg_()
    # The cosine is -1: the distance is 2, twice.
    assert float(loss([*columns, general], labels)) == pytest.approx(float(plain(columns)) + 4, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("given", [True, False])
def test_training_moves_kept_texts_less(given: bool, tmp_path: Path, tiny_folder: Path) -> None:
    texts = TEXTS if given else general_texts()[:32]
    auxiliary = AuxiliaryData(kept_texts=texts if given else ())
    before = Encoder.load(tiny_folder).encode(texts)
    kept = {}
    for weight in (0.0, 20.0):
        settings = quick(distillation=weight, calibrate_scores=False)
        folder = train_encoder(
            examples(), tmp_path / str(weight), base=tiny_folder, settings=settings, auxiliary=auxiliary
        ).folder
        kept[weight] = float((Encoder.load(folder).encode(texts) * before).sum(axis=1).mean())
    assert 1 - kept[20.0] < 0.5 * (1 - kept[0.0])


def test_a_weight_below_zero_is_refused() -> None:
    with pytest.raises(ConfigError, match="distillation is -1"):
        quick(distillation=-1)


@pytest.mark.slow
def test_a_cut_training_goes_on_with_the_same_kept_texts_only(tmp_path: Path, tiny_folder: Path) -> None:
    settings, checkpoints = quick(distillation=1.0), tmp_path / "checkpoints"

    def train(name: str, texts: list[str]) -> None:
        auxiliary = AuxiliaryData(kept_texts=texts)
        train_encoder(
            examples(),
            tmp_path / name,
            base=tiny_folder,
            settings=settings,
            auxiliary=auxiliary,
            checkpoints=checkpoints,
        )

    train("first", TEXTS)
    with pytest.raises(TrainingError, match="another"):
        train("second", TEXTS[:2])
