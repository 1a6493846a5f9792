"""Score calibration after training, weight averaging, and the samples of queries that scores are measured on."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer
from train_world import examples, quick

from hins_memory.encoders.encoder import Encoder
from hins_memory.encoders.score_offset import score_offset_of, with_score_offset, without_score_offset
from hins_memory.errors import ConfigError
from hins_memory.training import AuxiliaryData, QuerySample, TrainSettings, train_encoder
from hins_memory.training.postprocess.calibration import calibrate_scores, fit_score_offset, shares_above
from hins_memory.training.postprocess.weight_averaging import average_weights
from hins_memory.training.query_samples import QuerySampler, SampleVectors, samples_of_examples

TEXTS = [f"{name} {deed} on day {day}" for name in ("Ann", "Bo") for deed in ("rows", "sings") for day in range(12)]
QUERIES = [f"what does {name} do on day {day}?" for name in ("Ann", "Bo") for day in range(12)]
SAMPLES = [QuerySample(tuple(QUERIES), tuple(TEXTS))]


def with_offset(encoder: Encoder, offset: float) -> Encoder:
    vectors = torch.from_numpy(encoder.encode([*TEXTS, *QUERIES]))
    direction = torch.linalg.eigh(vectors.T @ vectors).eigenvectors[:, 0]
    return Encoder(with_score_offset(encoder.model, offset, direction), "offset")


@pytest.mark.slow
def test_a_score_offset_changes_scores_and_no_ranking(stock_encoder):
    found = with_offset(stock_encoder, 0.25)
    plain = stock_encoder.encode(QUERIES, role="query") @ stock_encoder.encode(TEXTS).T
    moved = found.encode(QUERIES, role="query") @ found.encode(TEXTS).T
    assert np.allclose(moved, (plain + 0.25) / 1.25, atol=1e-3)
    assert np.array_equal(plain.argmax(axis=1), moved.argmax(axis=1))
    assert np.allclose(found.encode(TEXTS[:1]) @ found.encode(TEXTS[:1]).T, 1.0, atol=1e-5)
    assert score_offset_of(found.model)[0] == pytest.approx(0.25, rel=1e-4)
    bare = without_score_offset(found.model)
    assert np.allclose(bare.encode(TEXTS[:9]), stock_encoder.model.encode(TEXTS[:9]), atol=1e-5)
    assert without_score_offset(stock_encoder.model) is stock_encoder.model


def test_an_encoder_with_a_score_offset_is_a_plain_folder(tmp_path, tiny_folder):
    found = with_offset(Encoder.load(tiny_folder), 0.25)
    found.model.save(str(tmp_path / "offset"), safe_serialization=True)
    again = SentenceTransformer(str(tmp_path / "offset"), trust_remote_code=False)
    assert np.allclose(again.encode(TEXTS[:9]), found.model.encode(TEXTS[:9]), atol=1e-6)


@hypothesis_settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.0, 1.0), st.sampled_from([(0.5,), (0.1, 0.5, 0.95), (0.6, 0.1)]))
def test_the_offset_that_was_taken_away_is_found_again(seed, offset, thresholds):
    scores = np.random.default_rng(seed).normal(0.55, 0.12, 2000).clip(-1, 1)
    before = torch.from_numpy(scores)
    after = before * (1 + offset) - offset
    found = fit_score_offset(before, after, thresholds)
    moved = (after + found) / (1 + found)
    for wanted, got in zip(shares_above(before, thresholds), shares_above(moved, thresholds), strict=True):
        assert abs(wanted - got) <= 0.02 * max(wanted, 0.01) + 0.002


def test_scores_that_did_not_fall_are_left(tiny_folder):
    encoder = Encoder.load(tiny_folder)
    model, found = calibrate_scores(encoder.model, Encoder.load(tiny_folder), SAMPLES, (0.1, 0.5))
    assert model is encoder.model
    assert found["lift"] == 0
    assert all(before == after == moved for before, after, moved in found["cutoffs"].values())


@pytest.mark.slow
def test_training_calibrates_the_scores(tmp_path, tiny_folder):
    cutoff = float(SampleVectors(SAMPLES, Encoder.load(tiny_folder)).all_top_scores().median())
    shares = {}
    for held in (False, True):
        settings = quick(score_thresholds=(cutoff,), calibrate_scores=held)
        data = AuxiliaryData(heldout_queries=SAMPLES)
        trained = train_encoder(examples(), tmp_path / str(held), base=tiny_folder, settings=settings, auxiliary=data)
        after = SampleVectors(SAMPLES, Encoder.load(trained.folder)).all_top_scores()
        shares[held] = shares_above(after, (cutoff,))[0]
        assert (trained.manifest.scores != {}) == held
        json.dumps(trained.manifest.to_dict())
    assert abs(shares[True] - 0.5) <= 0.025
    assert abs(shares[False] - 0.5) > 0.05


def test_weight_averaging_is_a_weighted_mean(tiny_folder):
    base, model = Encoder.load(tiny_folder).model, Encoder.load(tiny_folder).model
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    average_weights(model, base, 0.25)
    for old, new in zip(base.parameters(), model.parameters(), strict=True):
        assert torch.allclose(new, old + 0.25, atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"averaging_weight": -0.1},
        {"averaging_weight": 0.0},
        {"averaging_weight": 1.1},
        {"score_thresholds": (1.5,)},
        {"lora_rank": 0},
    ],
)
def test_settings_out_of_range_are_refused(changes):
    with pytest.raises(ConfigError):
        TrainSettings(**changes)


def test_the_sample_is_bounded_and_repeatable_and_leaves_out_queries_that_are_trained_on():
    def sample() -> list[QuerySample]:
        sampler = QuerySampler(seed=3)
        for owner in range(500):
            sampler.add((f"q{owner}-{n}" for n in range(50)), (f"t{owner}-{n}" for n in range(300)))
        sampler.add((), ("a text without a query",))
        return sampler.sample(frozenset(f"q{owner}-{n}" for owner in range(500) for n in range(0, 50, 2)))

    found = sample()
    assert found == sample()
    assert len(found) == 24
    assert sum(len(one.texts) for one in found) <= 1536
    assert sum(len(one.queries) for one in found) <= 384
    assert not any(int(query.rpartition("-")[2]) % 2 == 0 for one in found for query in one.queries)
    # 64 of 300 texts: as many of the best as correspond to ten of all
    assert {one.results for one in found} == {2}
    one_owner = QuerySampler(seed=0)
    one_owner.add(["q"], ["t"])
    assert one_owner.sample(frozenset(["q"])) == [QuerySample(("q",), ("t",), 10)]


def test_a_sample_can_be_made_from_the_examples():
    found = samples_of_examples(examples(), seed=0)
    assert found
    assert {query for one in found for query in one.queries} <= {row.positive.query for row in examples()}
