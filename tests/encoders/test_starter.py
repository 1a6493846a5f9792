"""The starter: a low-rank delta written, merged, verified; and what is packaged."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hins_memory.config import Settings
from hins_memory.encoders.encoder import DEFAULT_MODEL, Encoder, encoder_version
from hins_memory.encoders.score_offset import with_score_offset
from hins_memory.encoders.starter import (
    is_starter,
    merge_delta,
    starter_digest,
    starter_packaged,
    starter_path,
    starter_version,
    starters,
    write_delta,
)
from hins_memory.errors import EncoderError
from hins_memory.training.base import base_digest

TEXTS = ["Ana plays the cello.", "我喜欢大提琴 🎻", "Who sails?"]
needs_starter = pytest.mark.skipif(not starter_packaged(), reason="no starter here; `make starter` makes it")


@pytest.fixture
def tuned(tiny_folder: Path, tmp_path: Path) -> Path:
    """The tiny model with a change of rank 2 in one matrix."""
    import torch
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "tuned"
    shutil.copytree(tiny_folder, folder)
    weights = load_file(folder / "model.safetensors")
    name = next(name for name, weight in weights.items() if "attention" in name and weight.dim() == 2)
    torch.manual_seed(0)
    weight = weights[name]
    weights[name] = weight + torch.randn(weight.shape[0], 2) @ torch.randn(2, weight.shape[1])
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_a_merged_delta_is_the_trained_model(tiny_folder: Path, tuned: Path, tmp_path: Path) -> None:
    target = tmp_path / "delta.safetensors"
    digest = write_delta(tiny_folder, tuned, target, 2, {"seed": 7})
    assert hashlib.sha256(target.read_bytes()).hexdigest() == digest
    record = json.loads(target.with_suffix(".json").read_text())
    assert record == {"sha256": digest, "bytes": target.stat().st_size, "about": {"seed": 7}}
    base, trained = Encoder.load(tiny_folder), Encoder.load(tuned)
    apart = np.abs(base.encode(TEXTS) - trained.encode(TEXTS)).max()
    merged = Encoder(merge_delta(Encoder.load(tiny_folder).model, target, digest), "merged")
    assert np.abs(merged.encode(TEXTS) - trained.encode(TEXTS)).max() < 0.02 * apart


def test_the_last_layer_of_a_trained_model_is_part_of_the_delta(tiny_folder: Path, tuned: Path, tmp_path: Path) -> None:
    import torch

    trained = Encoder.load(tuned)
    direction = torch.nn.functional.normalize(torch.randn(trained.dim), dim=0)
    with_score_offset(trained.model, 0.3, direction).save(str(tmp_path / "offset"))
    target = tmp_path / "delta.safetensors"
    digest = write_delta(tiny_folder, tmp_path / "offset", target, 2, {})
    merged = Encoder(merge_delta(Encoder.load(tiny_folder).model, target, digest), "merged", cache_size=0)
    wanted = Encoder.load(tmp_path / "offset").encode(TEXTS)
    assert np.abs(merged.encode(TEXTS) - wanted).max() < 0.02


def test_writing_the_same_change_twice_gives_the_same_digest(tiny_folder: Path, tuned: Path, tmp_path: Path) -> None:
    digests = {write_delta(tiny_folder, tuned, tmp_path / f"{name}.safetensors", 2, {}) for name in "ab"}
    assert len(digests) == 1


def test_a_damaged_or_missing_delta_is_a_clear_error(tiny_folder: Path, tuned: Path, tmp_path: Path) -> None:
    target = tmp_path / "delta.safetensors"
    digest = write_delta(tiny_folder, tuned, target, 2, {})
    model = Encoder.load(tiny_folder).model
    target.write_bytes(target.read_bytes()[:-1] + b"?")
    with pytest.raises(EncoderError, match="damaged"):
        merge_delta(model, target, digest)
    target.unlink()
    with pytest.raises(EncoderError, match="cannot be read"):
        merge_delta(model, target, digest)


def test_a_delta_of_another_model_and_no_change_are_clear_errors(
    tiny_folder: Path, tuned: Path, tmp_path: Path, stock_encoder: Encoder
) -> None:
    target = tmp_path / "delta.safetensors"
    digest = write_delta(tiny_folder, tuned, target, 2, {})
    with pytest.raises(EncoderError, match="does not fit"):
        merge_delta(stock_encoder.model, target, digest)
    with pytest.raises(EncoderError, match="same weights"):
        write_delta(tiny_folder, tiny_folder, target, 2, {})
    with pytest.raises(EncoderError, match="no readable"):
        write_delta(tiny_folder, tmp_path, target, 2, {})


@needs_starter
def test_the_packaged_starter_is_small_and_has_its_recorded_digest() -> None:
    content = starter_path().read_bytes()
    assert len(content) <= 2_000_000
    assert hashlib.sha256(content).hexdigest() == starter_digest()


def base_of(pipeline: Any) -> str:
    """What a training would start from now."""
    found = str(pipeline.loop.base or pipeline._source.trained_from(pipeline._serving_version()))
    return "stock" if found == DEFAULT_MODEL else found


@pytest.mark.slow
@needs_starter
@pytest.mark.parametrize("name", starters()[1:])
def test_stores_of_an_earlier_starter_find_it_by_its_version(name: str, settings: Settings) -> None:
    from hins_memory.registry.loader import EncoderSource
    from hins_memory.registry.registry import Registry

    assert hashlib.sha256(starter_path(name).read_bytes()).hexdigest() == starter_digest(name)
    assert name == f"hins-starter@{starter_digest(name)[:8]}" == encoder_version(name)
    encoder = EncoderSource(Registry(settings)).by_version(name)
    assert encoder.version == name
    # What a tower on it, or an export, is recorded with, and what a training that goes on looks at.
    assert EncoderSource(Registry(settings)).source(name) == name == base_digest(name)
    assert np.abs(encoder.encode(TEXTS) - Encoder.starter().encode(TEXTS)).max() > 0.01


@needs_starter
def test_what_is_no_starter_is_not_taken_for_one() -> None:
    for name in ("stock", "hins-starter@00000000", "hins-starter@../x", "/tmp/starter"):
        assert not is_starter(name)


@needs_starter
@pytest.mark.slow
def test_new_projects_begin_with_the_starter_and_old_stores_are_served_as_before(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hins_memory.loop.pipeline import Pipeline
    from hins_memory.registry.loader import EncoderSource
    from hins_memory.registry.registry import Registry

    monkeypatch.delenv("HINS_BASE")
    encoders = EncoderSource(Registry(settings))
    stock = encoders.stock().version
    assert encoders.initial().version == starter_version() != stock
    assert encoders.by_version(starter_version()) is encoders.initial()
    assert encoders.by_version(stock) is encoders.stock()
    pipeline = Pipeline(settings)
    assert base_of(pipeline) == "starter"
    assert [pipeline._load(one).version for one in ("", stock)] == [starter_version(), stock]
    monkeypatch.setenv("HINS_BASE", "stock")
    assert (encoders.initial().version, base_of(pipeline)) == (stock, "stock")
    assert encoders.by_version(starter_version()).version == starter_version()


@pytest.mark.slow
@needs_starter
def test_training_starts_from_what_serves_or_from_what_that_was_trained_from(
    settings: Settings, tuned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hins_memory.loop.pipeline import LoopSettings, Pipeline

    monkeypatch.delenv("HINS_BASE")
    pipeline = Pipeline(settings)
    stock = encoder_version("stock")
    # A store that was opened with the plain model: the starter would be judged by what it has forgotten against it.
    pipeline.registry.record_live("agent", stock, "")
    assert (base_of(pipeline), pipeline._load(pipeline._serving_version()).version) == ("stock", stock)
    first = pipeline.registry.add(tuned, {"base": stock}).id
    pipeline.registry.promote(first)
    assert (pipeline._serving_version(), base_of(pipeline)) == (first, "stock")
    assert base_of(Pipeline(settings, loop=LoopSettings(base="starter"))) == "starter"
    monkeypatch.setenv("HINS_BASE", str(settings.root))
    assert base_of(pipeline) == "stock"


@needs_starter
@pytest.mark.slow
def test_the_starter_loads_and_finds_better_than_stock_on_the_packaged_conversations(stock_encoder: Encoder) -> None:
    from hins_memory.data.sample_conversations import load_sample
    from hins_memory.evaluation import EvalQuery, EvalSet, evaluate_encoder

    talk = load_sample()[0]
    asked = tuple(EvalQuery(one.question, frozenset(one.evidence)) for one in talk.questions)
    held = [EvalSet(talk.id, {turn.id: f"{turn.speaker}: {turn.text}" for turn in talk.turns}, asked)]
    starter = Encoder.load("starter")
    assert starter.version == Encoder.starter().version == f"hins-starter@{starter_digest()[:8]}"
    before = evaluate_encoder(stock_encoder, held, ks=(10,)).ndcg[10].mean()
    assert evaluate_encoder(starter, held, ks=(10,)).ndcg[10].mean() > before
