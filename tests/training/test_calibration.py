"""The scale of the scores after training, weight averaging, and the sample of traffic that they are measured on."""

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
from hins_memory.encoders.score_offset import lift_of, with_lift, without_lift
from hins_memory.errors import ConfigError
from hins_memory.training import Samples, TrainSettings, train_encoder
from hins_memory.training.postprocess.calibration import calibrated, fit_lift, shares_above
from hins_memory.training.postprocess.interpolate import blend
from hins_memory.training.postprocess.traffic import Traffic, TrafficSampler, TrafficVectors, traffic_of_examples

TEXTS = [f"{name} {deed} on day {day}" for name in ("Ann", "Bo") for deed in ("rows", "sings") for day in range(12)]
QUERIES = [f"what does {name} do on day {day}?" for name in ("Ann", "Bo") for day in range(12)]
TRAFFIC = [Traffic(tuple(QUERIES), tuple(TEXTS))]


def lifted(encoder: Encoder, lift: float) -> Encoder:
    vectors = torch.from_numpy(encoder.encode([*TEXTS, *QUERIES]))
    direction = torch.linalg.eigh(vectors.T @ vectors).eigenvectors[:, 0]
    return Encoder(with_lift(encoder.model, lift, direction), "lifted")


def test_a_lift_changes_scores_and_no_ranking(stock_encoder):
    found = lifted(stock_encoder, 0.25)
    plain = stock_encoder.encode(QUERIES, role="query") @ stock_encoder.encode(TEXTS).T
    moved = found.encode(QUERIES, role="query") @ found.encode(TEXTS).T
    assert np.allclose(moved, (plain + 0.25) / 1.25, atol=1e-3)
    assert np.array_equal(plain.argmax(axis=1), moved.argmax(axis=1))
    assert np.allclose(found.encode(TEXTS[:1]) @ found.encode(TEXTS[:1]).T, 1.0, atol=1e-5)
    assert lift_of(found.model)[0] == pytest.approx(0.25, rel=1e-4)
    bare = without_lift(found.model)
    assert np.allclose(bare.encode(TEXTS[:9]), stock_encoder.model.encode(TEXTS[:9]), atol=1e-5)
    assert without_lift(stock_encoder.model) is stock_encoder.model


def test_a_lifted_encoder_is_a_plain_folder(tmp_path, tiny_folder):
    found = lifted(Encoder.load(tiny_folder), 0.25)
    found.model.save(str(tmp_path / "lifted"), safe_serialization=True)
    again = SentenceTransformer(str(tmp_path / "lifted"), trust_remote_code=False)
    assert np.allclose(again.encode(TEXTS[:9]), found.model.encode(TEXTS[:9]), atol=1e-6)


@hypothesis_settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.0, 1.0), st.sampled_from([(0.5,), (0.1, 0.5, 0.95), (0.6, 0.1)]))
def test_the_lift_that_was_undone_is_found_again(seed, lift, cutoffs):
    scores = np.random.default_rng(seed).normal(0.55, 0.12, 2000).clip(-1, 1)
    before = torch.from_numpy(scores)
    after = before * (1 + lift) - lift
    found = fit_lift(before, after, cutoffs)
    moved = (after + found) / (1 + found)
    for wanted, got in zip(shares_above(before, cutoffs), shares_above(moved, cutoffs), strict=True):
        assert abs(wanted - got) <= 0.02 * max(wanted, 0.01) + 0.002


def test_scores_that_did_not_fall_are_left(tiny_folder):
    encoder = Encoder.load(tiny_folder)
    model, found = calibrated(encoder.model, Encoder.load(tiny_folder), TRAFFIC, (0.1, 0.5))
    assert model is encoder.model
    assert found["lift"] == 0
    assert all(before == after == lifted for before, after, lifted in found["cutoffs"].values())


@pytest.mark.slow
def test_training_brings_the_scores_back(tmp_path, tiny_folder):
    cutoff = float(TrafficVectors(TRAFFIC, Encoder.load(tiny_folder)).all_best_scores().median())
    shares = {}
    for anchor in (False, True):
        settings = quick(cutoffs=(cutoff,), anchor=anchor)
        trained = train_encoder(
            examples(), tmp_path / str(anchor), base=tiny_folder, settings=settings, samples=Samples(unseen=TRAFFIC)
        )
        after = TrafficVectors(TRAFFIC, Encoder.load(trained.folder)).all_best_scores()
        shares[anchor] = shares_above(after, (cutoff,))[0]
        assert (trained.manifest.scores != {}) == anchor
        json.dumps(trained.manifest.to_dict())
    assert abs(shares[True] - 0.5) <= 0.025
    assert abs(shares[False] - 0.5) > 0.05


def test_blending_is_a_weighted_mean(tiny_folder):
    base, model = Encoder.load(tiny_folder).model, Encoder.load(tiny_folder).model
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    blend(model, base, 0.25)
    for old, new in zip(base.parameters(), model.parameters(), strict=True):
        assert torch.allclose(new, old + 0.25, atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [{"soup": -0.1}, {"soup": 0.0}, {"soup": 1.1}, {"max_general_loss": 1.1}, {"cutoffs": (1.5,)}, {"lora_rank": 0}],
)
def test_settings_out_of_range_are_refused(changes):
    with pytest.raises(ConfigError):
        TrainSettings(**changes)


def test_the_sample_is_bounded_and_repeatable_and_leaves_out_what_is_learned():
    def sample() -> list[Traffic]:
        sampler = TrafficSampler(seed=3)
        for owner in range(500):
            sampler.see((f"q{owner}-{n}" for n in range(50)), (f"t{owner}-{n}" for n in range(300)))
        sampler.see((), ("a text that nobody asked of",))
        return sampler.traffic(frozenset(f"q{owner}-{n}" for owner in range(500) for n in range(0, 50, 2)))

    found = sample()
    assert found == sample()
    assert len(found) == 24
    assert sum(len(one.texts) for one in found) <= 1536
    assert sum(len(one.queries) for one in found) <= 384
    assert not any(int(query.rpartition("-")[2]) % 2 == 0 for one in found for query in one.queries)
    # 64 of 300 texts: as many of the best as correspond to ten of all
    assert {one.results for one in found} == {2}
    one_owner = TrafficSampler(seed=0)
    one_owner.see(["q"], ["t"])
    assert one_owner.traffic(frozenset(["q"])) == [Traffic(("q",), ("t",), 10)]


def test_examples_show_some_of_the_traffic():
    found = traffic_of_examples(examples(), seed=0)
    assert found
    assert {query for one in found for query in one.queries} <= {row.positive.query for row in examples()}
