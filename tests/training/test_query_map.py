"""The query mode: it learns, documents stay as they are, scores keep their height, and the folder is a plain one."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from train_world import examples

from hins_memory.encoders.encoder import Encoder
from hins_memory.errors import TrainingError
from hins_memory.evaluation import EvalQuery, EvalSet, evaluate_encoder
from hins_memory.registry.registry import Registry
from hins_memory.training import TrainSettings, train_encoder
from hins_memory.training.query_mode.example_vectors import ExampleVectors
from hins_memory.training.query_mode.query_map import (
    QueryMap,
    calibrate_query_map,
    fit_query_map,
    with_query_map,
    without_query_map,
)
from hins_memory.training.query_samples import QuerySample, SampleVectors


def settings(**changes) -> TrainSettings:
    return TrainSettings(**{"mode": "query", "batch_size": 8, "replay": 0.0, **changes})


def learned(encoder: Encoder) -> float:
    """NDCG@10 of the examples' own queries over their positives and negatives."""
    rows = examples()
    texts = {text: text for row in rows for text in (row.positive.text, *(one.text for one in row.negatives))}
    queries = tuple(EvalQuery(row.positive.query, frozenset([row.positive.text])) for row in rows)
    return evaluate_encoder(encoder, [EvalSet("all", texts, queries)]).mean()["ndcg@10"]


@pytest.mark.slow
def test_it_learns_and_documents_keep_their_vectors(tmp_path, tiny_folder):
    base = Encoder.load(tiny_folder)
    steps: list[tuple[str, int, int]] = []
    result = train_encoder(
        examples(),
        tmp_path / "model",
        base=tiny_folder,
        settings=settings(calibrate_scores=False),
        progress=lambda *step: steps.append(step),
    )
    assert steps[-1] == ("train", 60, 60)
    plain = SentenceTransformer(str(result.folder), trust_remote_code=False)
    texts = ["Ann: cello it is", "", "🎻 大提琴"]
    stored = base.encode(texts, role="document")
    assert np.allclose(plain.encode_document(texts, normalize_embeddings=True), stored, atol=1e-6)
    # and so does whoever does not say which side a text is on
    assert np.allclose(plain.encode(texts, normalize_embeddings=True), stored, atol=1e-6)
    trained = Encoder.load(result.folder)
    assert not np.allclose(trained.encode(texts, role="query"), base.encode(texts, role="query"), atol=0.01)
    assert learned(trained) > learned(base) + 0.05
    manifest = json.loads(json.dumps(result.manifest.to_dict()))
    assert (manifest["mode"], manifest["document_space"]) == ("query", base.space)
    assert len(manifest["metrics"]["loss"]) == 60


def test_a_version_says_whose_vectors_it_searches(tmp_path, settings, query_version, tiny_version):
    encoder = Encoder.load(query_version.path)
    assert (encoder.version, encoder.space) == (query_version.id, tiny_version.id)
    registry = Registry(settings)
    assert registry.document_space(query_version.id) == registry.document_space(tiny_version.id) == tiny_version.id
    assert Encoder.load(tiny_version.path).space == tiny_version.id


@pytest.mark.slow
def test_scores_are_held_where_they_were(tmp_path, tiny_folder):
    base = Encoder.load(tiny_folder)
    texts = sorted({row.positive.text for row in examples()} | {f"a note of day {day}" for day in range(40)})
    samples = [QuerySample(tuple(f"what was noted on day {day}?" for day in range(40)), tuple(texts))]
    sample = SampleVectors(samples, base)
    before = sample.all_top_scores()
    drift = {}
    for held in (False, True):
        found, _ = fit_query_map(ExampleVectors(examples(), base), sample, settings(calibrate_scores=held))
        with torch.no_grad():
            after = sample.top_scores(0, found(sample.queries[0])).flatten()
        drift[held] = float((after.mean() - before.mean()).abs())
    assert drift[True] < drift[False] / 3


def test_calibration_meets_the_threshold_on_held_out_queries(tiny_folder):
    base = Encoder.load(tiny_folder)
    texts = tuple(f"a note of day {day}" for day in range(40))
    sample = SampleVectors([QuerySample(tuple(f"what was noted on day {day}?" for day in range(40)), texts)], base)
    cutoff = float(sample.all_top_scores().median())
    found = QueryMap(32, rank=1, seed=0)
    with torch.no_grad():
        found.shift.copy_(-0.2 * torch.cat(sample.texts).mean(dim=0))

    def share() -> float:
        with torch.no_grad():
            return float((sample.top_scores(0, found(sample.queries[0])) >= cutoff).float().mean())

    assert share() < 0.4
    calibrate_query_map(found, sample, (cutoff,))
    assert share() == pytest.approx(0.5, abs=0.025)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_map(tiny_folder):
    base = Encoder.load(tiny_folder)
    vectors, sample = ExampleVectors(examples(), base), SampleVectors([QuerySample(("a",), ("b", "c"))], base)
    maps = [fit_query_map(vectors, sample, settings(seed=seed))[0].matrix()[0] for seed in (1, 1, 2)]
    assert torch.equal(maps[0], maps[1])
    assert not torch.equal(maps[0], maps[2])


def test_the_map_begins_as_the_identity_and_has_the_rank_asked_for():
    found = QueryMap(16, rank=3, seed=0)
    vectors = torch.nn.functional.normalize(torch.randn(5, 16), dim=-1)
    assert torch.allclose(found(vectors), vectors, atol=1e-6)
    with torch.no_grad():
        found.up.normal_()
    weight, _ = found.matrix()
    assert torch.linalg.matrix_rank(weight - torch.eye(16)) == 3


def test_a_new_map_replaces_the_one_before(tiny_folder):
    model = Encoder.load(tiny_folder).model
    maps = [QueryMap(32, rank=2, seed=seed) for seed in (0, 1)]
    for found in maps:
        with torch.no_grad():
            found.up.normal_()
    once = with_query_map(model, maps[1])
    twice = with_query_map(with_query_map(model, maps[0]), maps[1])
    texts = ["Ann plays the cello."]
    assert np.allclose(once.encode_query(texts), twice.encode_query(texts), atol=1e-6)
    assert len(list(twice.children())) == len(list(once.children()))
    bare = without_query_map(once)
    assert np.allclose(bare.encode_query(texts), bare.encode_document(texts), atol=1e-6)
    assert without_query_map(model) is model


def test_repeated_texts_and_positives_of_the_same_query_do_not_count(tiny_folder):
    base = Encoder.load(tiny_folder)
    rows = examples()[:4]
    one = ExampleVectors(rows, base)
    # the same rows twice: every text and every query occurs in another row too
    double = ExampleVectors([*rows, *rows], base)
    loss = one.loss(one.queries, list(range(4)), 0.05)
    assert float(double.loss(double.queries, list(range(8)), 0.05)) == pytest.approx(float(loss), rel=1e-5)


def test_a_loss_that_is_not_a_number_stops(tiny_folder):
    base = Encoder.load(tiny_folder)
    vectors = ExampleVectors(examples(), base)
    vectors.queries[0, 0] = float("nan")
    sample = SampleVectors([QuerySample(("a",), ("b",))], base)
    with pytest.raises(TrainingError, match="loss became nan"):
        fit_query_map(vectors, sample, settings())
