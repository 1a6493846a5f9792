"""The tower mode: queries learn, documents stay, scores keep their height, and the folder is a plain one."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Dense, Normalize
from train_world import examples, quick

from hins_memory.config import Settings
from hins_memory.data.stored_vectors import StoredQuery, StoredVectors, StoredVectorsWriter
from hins_memory.encoders.encoder import Encoder
from hins_memory.encoders.score_offset import with_score_offset
from hins_memory.encoders.sides import two_sided
from hins_memory.errors import NotEnoughDataError, TrainingError
from hins_memory.evaluation import EvalQuery, EvalSet, evaluate_encoder
from hins_memory.registry.delta import export_delta, import_delta
from hins_memory.registry.loader import EncoderSource
from hins_memory.registry.registry import Registry
from hins_memory.training import AuxiliaryData, RunContent, TrainSettings, open_run, train_encoder
from hins_memory.training.postprocess.calibration import shares_above
from hins_memory.training.query_samples import QuerySample, SampleVectors
from hins_memory.training.tower.calibration import calibrate_tower
from hins_memory.training.tower.model import TwoSides, document_side
from hins_memory.training.tower.stored_loss import StoredVectorsLoss
from hins_memory.training.tower.targets import Targets
from hins_memory.types import Positive, Scope, TieredExample

TEXTS = ["Ann: cello it is", "", "🎻 大提琴"]


def settings(**changes) -> TrainSettings:
    return quick(**{"mode": "tower", "learning_rate": 0.02, **changes})


def everything() -> EvalSet:
    rows = examples()
    texts = {text: text for row in rows for text in (row.positive.text, *(one.text for one in row.negatives))}
    queries = tuple(EvalQuery(row.positive.query, frozenset([row.positive.text])) for row in rows)
    return EvalSet("all", texts, queries)


def score(encoder: Encoder) -> float:
    return evaluate_encoder(encoder, [everything()]).mean()["ndcg@10"]


def store(folder: Path, encoder: Encoder, owner: str = "user=u") -> StoredVectors:
    """Every text of the examples as one owner's, each query's own positive alone being relevant."""
    rows = examples()
    texts = list(everything().documents)
    queries = []
    for row in rows:
        positive = texts.index(row.positive.text)
        others = np.asarray([place for place in range(len(texts)) if place != positive])
        queries.append(StoredQuery(row.positive.query, {row.positive.memory_id: positive}, others))
    with StoredVectorsWriter(folder) as writer:
        writer.add(owner, encoder.encode(texts), queries)
    return StoredVectors(folder)


@pytest.mark.slow
@pytest.mark.parametrize("evidence", [True, False])
def test_queries_learn_and_documents_keep_their_vectors(tmp_path, tiny_folder, evidence):
    base = Encoder.load(tiny_folder)
    auxiliary = AuxiliaryData(stored=store(tmp_path / "stored", Encoder.load(tiny_folder)) if evidence else None)
    result = train_encoder(examples(), tmp_path / "model", base=tiny_folder, settings=settings(), auxiliary=auxiliary)
    plain = SentenceTransformer(str(result.folder), trust_remote_code=False)
    stored = base.encode(TEXTS)
    assert np.allclose(plain.encode_document(TEXTS, normalize_embeddings=True), stored, atol=1e-6)
    # and so does whoever does not say which side a text is on
    assert np.allclose(plain.encode(TEXTS, normalize_embeddings=True), stored, atol=1e-6)
    trained = Encoder.load(result.folder)
    assert not np.allclose(trained.encode(TEXTS, role="query"), base.encode(TEXTS, role="query"), atol=0.01)
    assert score(trained) > score(base) + 0.1
    manifest = result.manifest
    assert (manifest.mode, manifest.document_space, manifest.base) == ("tower", base.space, base.version)
    assert len(manifest.metrics.loss) == manifest.settings["steps"] == 12


@pytest.mark.slow
def test_only_the_upper_half_of_the_layers_is_tuned(tmp_path, stock_encoder):
    result = train_encoder(examples(), tmp_path / "model", base="stock", settings=settings(min_steps=3, epochs=0.1))
    before = stock_encoder.model.state_dict()
    after = {
        name.removeprefix("0.sub_modules.query."): weight
        for name, weight in SentenceTransformer(str(result.folder)).state_dict().items()
        if name.startswith("0.sub_modules.query.")
    }
    changed = {name for name, weight in after.items() if name in before and not torch.equal(weight, before[name])}
    assert {int(name.split(".layer.")[1].split(".")[0]) for name in changed} == {3, 4, 5}


@pytest.mark.slow
def test_another_round_starts_from_the_documents_encoder(tmp_path, tiny_folder):
    base = Encoder.load(tiny_folder)
    first = train_encoder(examples(), tmp_path / "one", base=tiny_folder, settings=settings())
    second = train_encoder(examples(), tmp_path / "two", base=first.folder, settings=settings())
    again, once = (Encoder.load(one.folder).encode(TEXTS, role="query") for one in (second, first))
    assert np.allclose(again, once, atol=1e-5)
    assert np.allclose(Encoder.load(second.folder).encode(TEXTS), base.encode(TEXTS), atol=1e-6)


@pytest.mark.slow
def test_any_other_training_of_a_tower_goes_on_from_its_documents(tmp_path, tiny_folder):
    first = train_encoder(examples(), tmp_path / "one", base=tiny_folder, settings=settings())
    whole = train_encoder(examples(), tmp_path / "two", base=first.folder, settings=quick(mode="lora"))
    straight = train_encoder(examples(), tmp_path / "three", base=tiny_folder, settings=quick(mode="lora"))
    found, expected = (Encoder.load(one.folder).encode(TEXTS, role="query") for one in (whole, straight))
    assert np.allclose(found, expected, atol=1e-5)
    assert whole.manifest.document_space == ""


def test_an_encoder_with_two_sides_of_its_own_is_refused(tmp_path, tiny_folder):
    model = SentenceTransformer(str(tiny_folder))
    other = copy.deepcopy(model)
    with torch.no_grad():
        other[0].auto_model.get_input_embeddings().weight.add_(1.0)
    encoder = Encoder(two_sided(other, model), "of two sides")
    assert document_side(encoder.model) is encoder.model
    with pytest.raises(TrainingError, match="treats queries and documents differently"):
        train_encoder(examples(), tmp_path / "model", base=encoder, settings=settings())
    assert document_side(model) is model


def test_scores_reach_the_cut_offs_as_often_as_before(tiny_folder):
    base = Encoder.load(tiny_folder)
    texts = tuple(f"a note of day {day}" for day in range(40))
    before = SampleVectors([QuerySample(tuple(f"what was noted on day {day}?" for day in range(40)), texts)], base)
    cutoff = float(before.all_top_scores().median())
    # as a training that spreads its queries leaves it
    shift = Dense(32, 32, activation_function=torch.nn.Identity())
    with torch.no_grad():
        shift.linear.weight.copy_(torch.eye(32))
        shift.linear.bias.copy_(-0.3 * torch.cat(before.texts).mean(dim=0))
    lowered = SentenceTransformer(modules=[*base.model.children(), Normalize(), shift, Normalize()], device="cpu")
    model, measured = calibrate_tower(lowered, TwoSides(lowered, base), before, (cutoff,))
    ((wanted, lower, found),) = measured["cutoffs"].values()
    assert lower < 0.4
    assert wanted == pytest.approx(0.5, abs=0.01)
    assert found == pytest.approx(0.5, abs=0.025)
    asked = TwoSides(model, base).encode(before.samples[0].queries, role="query")
    really = shares_above(torch.from_numpy(asked) @ before.texts[0].T, (cutoff,))
    all_before = shares_above(before.queries[0] @ before.texts[0].T, (cutoff,))
    assert really == pytest.approx(all_before, abs=0.05)


@pytest.mark.slow
def test_heights_are_held_while_training(tmp_path, tiny_folder):
    base = Encoder.load(tiny_folder)
    stored = store(tmp_path / "stored", base)
    drift = {}
    for held in (True, False):
        name = tmp_path / str(held)
        # the last layer, which would level what is left, is for the same
        result = train_encoder(
            examples(),
            name,
            base=base,
            settings=settings(calibrate_scores=held),
            auxiliary=AuxiliaryData(stored=stored),
        )
        targets, trained = Targets(examples(), stored, base), Encoder.load(result.folder)
        asked = trained.encode([one.query for one in targets], role="query")
        heights = [np.sort(targets.vectors(one) @ q)[-10:].mean() - one.height for one, q in zip(targets, asked)]  # noqa: B905
        drift[held] = float(np.abs(heights).mean())
    assert drift[True] < drift[False] / 2


@pytest.mark.slow
def test_documents_with_a_raised_scale_are_learned_from_as_those_without(tmp_path, tiny_folder):
    base = Encoder.load(tiny_folder)
    vectors = torch.from_numpy(base.encode(list(everything().documents)))
    direction = torch.linalg.eigh(vectors.T @ vectors).eigenvectors[:, 0]
    raised = Encoder(with_score_offset(base.model, 1.0, direction), "raised")
    results = [
        train_encoder(examples(), tmp_path / encoder.version, base=encoder, settings=settings())
        for encoder in (raised, base)
    ]
    trained = Encoder.load(results[0].folder)
    assert np.allclose(trained.encode(TEXTS), Encoder(raised.model, "again").encode(TEXTS), atol=1e-6)
    assert score(trained) > score(raised) + 0.1
    first, expected = (one.manifest.metrics.loss[0] for one in results)
    assert first == pytest.approx(expected, abs=0.01), "cosines that lie nearer to one another are told apart as well"


def test_every_positive_counts_by_how_sure_it_is_and_no_other_owner_is_seen(tmp_path, tiny_folder):
    base = Encoder.load(tiny_folder)
    texts = ["one", "two", "three", "four"]
    with StoredVectorsWriter(tmp_path / "stored") as writer:
        writer.add("user=a", base.encode(texts), [StoredQuery("which?", {"x": 0, "y": 1}, np.asarray([2, 3]))])
        writer.add("user=b", base.encode(["five", "six"]), [StoredQuery("which?", {"x": 1}, np.asarray([0]))])
        writer.add("user=c", base.encode(["seven"]), [])
    stored = StoredVectors(tmp_path / "stored")
    assert len(stored.vectors(32)) == 6, "nobody asked for what the last one has"
    rows = [
        TieredExample(Scope(user=user), "c", Positive("which?", name, "", "answer", sure), ())
        for user, name, sure in (("a", "x", 0.9), ("a", "y", 0.6), ("b", "x", 1.0), ("c", "x", 1.0))
    ]
    rows[-1] = replace(rows[-1], positive=replace(rows[-1].positive, text="seven"))
    targets = Targets(rows, stored, base)
    first, second = targets
    assert first.weights == pytest.approx([0.6, 0.4])
    assert np.allclose(targets.vectors(first), base.encode(texts), atol=1e-3)
    assert np.allclose(targets.vectors(second), base.encode(["six", "five"]), atol=1e-3)

    def loss() -> float:
        model = StoredVectorsLoss(base.model, targets, hold_scores=False)
        return float(model([base.model.preprocess(["which?"])], torch.tensor([0])).detach())

    s = base.encode(texts) @ base.encode(["which?"], role="query")[0] / 0.05
    expected = [np.log(np.exp(s[[p, 2, 3]]).sum()) - s[p] for p in (0, 1)]
    assert loss() == pytest.approx(0.6 * expected[0] + 0.4 * expected[1], abs=0.05)


@pytest.mark.slow
def test_sampled_negatives_count_for_those_that_they_stand_for(tmp_path, tiny_folder):
    base = Encoder.load(tiny_folder)
    texts = [f"a note of day {day}" for day in range(201)]
    vectors = base.encode(texts)
    draw = np.random.default_rng(0)
    near, far = np.arange(1, 11), np.arange(11, 201)

    def loss(name: str, negatives: np.ndarray, sampled: int, population: int) -> float:
        query = StoredQuery("what was noted?", {"m": 0}, negatives, sampled, population)
        with StoredVectorsWriter(tmp_path / name) as writer:
            writer.add("user=u", vectors, [query])
        row = TieredExample(Scope(user="u"), "c", Positive("what was noted?", "m", texts[0], "answer", 1.0), ())
        targets = Targets([row], StoredVectors(tmp_path / name), base)
        model = StoredVectorsLoss(base.model, targets, hold_scores=False)
        return float(model([base.model.preprocess(["what was noted?"])], torch.tensor([0])).detach())

    whole = loss("whole", np.concatenate([near, far]), 0, 0)
    some = [
        loss(f"some{n}", np.concatenate([near, draw.choice(far, 40, replace=False)]), 40, len(far)) for n in range(8)
    ]
    assert np.mean(some) == pytest.approx(whole, abs=0.1)
    assert loss("without", np.concatenate([near, far[:40]]), 0, 0) < whole - 0.5


def test_what_looks_like_another_answer_is_no_negative_where_only_examples_are_known(tiny_folder):
    base = Encoder.load(tiny_folder)
    rows = [
        *examples(),
        TieredExample(Scope(user="u"), "c", Positive("Who has chess?", "m", "Bo: chess it is!", "answer", 1.0), ()),
    ]
    targets = Targets(rows, None, base)
    for target in targets:
        vectors, count = targets.vectors(target), len(target.positives)
        assert float((vectors[count:] @ vectors[:count].T).max()) < 1
    # all texts of this encoder are near to one another, so that only what mining chose is left
    assert {len(one.negatives) for one in targets} == {1, 2}
    assert "Who has chess?" not in {one.query for one in targets}, "nothing is surely no answer to it"


def test_queries_are_embedded_once_and_only_where_they_are_needed(tmp_path, tiny_folder):
    asked: list[str] = []

    class Listed(Encoder):
        def encode(self, texts, *, role="document", batch_size=32):
            if role == "query":
                asked.extend(texts)
            return super().encode(texts, role=role, batch_size=batch_size)

    base = Listed(Encoder.load(tiny_folder).model, "listed")
    stored = store(tmp_path / "stored", base)
    # one that is not among the stored ones, so that all the ways are taken
    other = replace(examples()[0], scope=Scope(user="another"))
    targets = Targets([*examples(), other], stored, base)
    assert sorted(asked) == sorted(one.query for one in targets)
    assert all(one.height is not None for one in targets)
    asked.clear()
    Targets([*examples(), other], stored, base, heights=False)
    assert asked == [other.positive.query]


def test_nothing_to_tell_apart_is_said(tmp_path, tiny_folder):
    rows = [
        TieredExample(Scope(user=f"u{n}"), "c", Positive(f"q{n}", "m", f"text {n}", "answer", 1.0), ())
        for n in range(16)
    ]
    with pytest.raises(NotEnoughDataError, match="told apart"):
        train_encoder(rows, tmp_path / "model", base=tiny_folder, settings=settings())


@pytest.mark.slow
def test_forgetting_is_measured_with_the_layer_that_calibrates_scores(tmp_path, tiny_folder):
    auxiliary = AuxiliaryData(general=everything(), general_loss=1.0)
    result = train_encoder(examples(), tmp_path / "model", base=tiny_folder, settings=settings(), auxiliary=auxiliary)
    after = result.manifest.scores["general"]["after"]
    assert after == pytest.approx(score(Encoder.load(result.folder)), abs=1e-3)


@pytest.mark.slow
def test_early_stopping_looks_at_both_sides(tmp_path, tiny_folder):
    result = train_encoder(
        examples(),
        tmp_path / "model",
        base=tiny_folder,
        settings=settings(patience=2),
        auxiliary=AuxiliaryData(early_stopping_sets=[everything()]),
    )
    held = dict(result.manifest.run.curves.held_out)
    assert len(held) > 2
    assert max(held.values()) == result.manifest.metrics.best_held_out
    assert score(Encoder.load(result.folder)) == pytest.approx(max(held.values()), abs=0.02)


def test_a_run_keeps_the_stored_vectors_with_its_checkpoints(tmp_path, tiny_folder):
    base = Encoder.load(tiny_folder)
    stored = store(tmp_path / "stored", base)
    expected = stored.vectors(32).copy()

    def make() -> RunContent:
        return RunContent(examples(), settings(), str(tiny_folder), AuxiliaryData(stored=stored))

    def cut() -> None:
        with open_run(tmp_path / "runs", make) as run:
            (run.checkpoints / "checkpoint-1").mkdir(parents=True)
            (run.checkpoints / "checkpoint-1" / "complete.json").write_text("{}")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cut()
    assert not (tmp_path / "stored").exists()
    with open_run(tmp_path / "runs", None) as run:
        kept = run.content.auxiliary.stored
        assert kept is not None
        assert np.array_equal(kept.vectors(32), expected)
        assert len(list(kept.queries())) == 24
        folder = kept.folder
    assert not folder.exists()


@pytest.mark.slow
def test_a_trained_tower_is_a_delta_of_its_rank(tmp_path, tiny_folder, monkeypatch):
    monkeypatch.setenv("HINS_BASE", str(tiny_folder))
    # With a part of the update taken back, and a last layer.
    auxiliary = AuxiliaryData(general=everything(), general_loss=0.0)
    result = train_encoder(
        examples(),
        tmp_path / "model",
        base=tiny_folder,
        settings=settings(score_thresholds=(0.99,)),
        auxiliary=auxiliary,
    )
    registry = Registry(Settings(home=tmp_path, project="test"))
    version = registry.add(result.folder, result.manifest)
    export_delta(version, tmp_path / "tower.safetensors", EncoderSource(registry))
    again = import_delta(tmp_path / "tower.safetensors", registry, EncoderSource(registry))
    for role, apart in (("query", 2e-3), ("document", 0.0)):
        found, expected = (Encoder.load(one.path).encode(TEXTS, role=role) for one in (again, version))
        assert np.abs(found - expected).max() <= apart
