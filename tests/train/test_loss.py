"""The loss: equal to a plain reference, deaf to padding, and blind to candidates that are no negatives."""

from __future__ import annotations

import copy

import pytest
import torch
from sentence_transformers import SentenceTransformer

from hins_memory.train.loss import LossSettings, TieredInfoNCELoss, embed_sorted


@pytest.fixture(scope="module")
def model(stock_encoder) -> SentenceTransformer:
    return stock_encoder.model.eval()


def columns(model: SentenceTransformer, *texts: list[str]) -> list[dict[str, torch.Tensor]]:
    return [
        {name: value for name, value in model.preprocess(column).items() if isinstance(value, torch.Tensor)}
        for column in texts
    ]


QUERIES = ["What does Ann play?", "Where does Bo live?"]
POSITIVES = ["Ann: I play the cello.", "Bo: I moved to Oslo, after a long search for a flat with a balcony."]
NEGATIVES = ["Bo: I play chess.", "Ann: Berlin is home."]


def reference(model: SentenceTransformer, queries: list[str], candidates: list[str], targets: list[int]) -> float:
    vectors = torch.tensor(model.encode(queries + candidates, normalize_embeddings=True))
    scores = vectors[: len(queries)] @ vectors[len(queries) :].T / 0.05
    return float(torch.nn.functional.cross_entropy(scores, torch.tensor(targets)))


@torch.no_grad()
def test_loss_is_infonce_over_all_candidates(model):
    loss = TieredInfoNCELoss(model)(columns(model, QUERIES, POSITIVES, NEGATIVES))
    assert float(loss) == pytest.approx(reference(model, QUERIES, POSITIVES + NEGATIVES, [0, 1]), abs=1e-4)


@torch.no_grad()
def test_repeated_negative_counts_once(model):
    once = TieredInfoNCELoss(model)(columns(model, QUERIES, POSITIVES, NEGATIVES))
    twice = TieredInfoNCELoss(model)(columns(model, QUERIES, POSITIVES, NEGATIVES, NEGATIVES))
    assert float(once) == pytest.approx(float(twice), abs=1e-5)


@torch.no_grad()
def test_negative_that_equals_the_positive_is_left_out(model):
    plain = TieredInfoNCELoss(model)(columns(model, QUERIES, POSITIVES))
    with_itself = TieredInfoNCELoss(model)(columns(model, QUERIES, POSITIVES, POSITIVES))
    assert float(plain) == pytest.approx(float(with_itself), abs=1e-5)


@torch.no_grad()
def test_positives_of_the_same_query_do_not_push_each_other_away(model):
    same = [QUERIES[0], QUERIES[0]]
    loss = TieredInfoNCELoss(model)(columns(model, same, POSITIVES, NEGATIVES))
    first = reference(model, same[:1], [POSITIVES[0], *NEGATIVES], [0])
    second = reference(model, same[:1], [POSITIVES[1], *NEGATIVES], [0])
    assert float(loss) == pytest.approx((first + second) / 2, abs=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("size", [1, 2, 5])
def test_micro_batches_do_not_change_the_vectors(model, size):
    texts = ["a", "a much longer text " * 20, "谁在弹大提琴？ 🎻", "", "middle sized text here"]
    together = embed_sorted(model, columns(model, texts), 8)
    assert torch.allclose(embed_sorted(model, columns(model, texts[:2], texts[2:]), size), together, atol=1e-5)
    assert torch.allclose(together.norm(dim=1), torch.ones(5), atol=1e-5)


def settings_loss(
    model: SentenceTransformer, texts: list[list[str]], weights: list[list[float]] | None = None, **changes
):
    labels = torch.tensor(weights) if weights is not None else None
    return float(TieredInfoNCELoss(model, LossSettings(**changes))(columns(model, *texts), labels))


@torch.no_grad()
def test_weights_scale_a_querys_own_negatives_only(model):
    texts = [QUERIES, POSITIVES, NEGATIVES]
    assert settings_loss(model, texts, [[1.0], [1.0]]) == pytest.approx(settings_loss(model, texts), abs=1e-6)
    vectors = torch.tensor(model.encode(QUERIES + POSITIVES + NEGATIVES, normalize_embeddings=True))
    scores = vectors[:2] @ vectors[2:].T / 0.05
    scores[0, 2] += torch.tensor(3.0).log()
    scores[1, 3] = float("-inf")
    expected = torch.nn.functional.cross_entropy(scores, torch.tensor([0, 1]))
    assert settings_loss(model, texts, [[3.0], [0.0]]) == pytest.approx(float(expected), abs=1e-4)


@torch.no_grad()
def test_a_weight_holds_wherever_the_text_stands_first(model):
    # the second query's negative is the first one's positive, which comes before it
    texts = [QUERIES, POSITIVES, [NEGATIVES[0], POSITIVES[0]]]
    vectors = torch.tensor(model.encode([*QUERIES, *POSITIVES, NEGATIVES[0]], normalize_embeddings=True))
    scores = vectors[:2] @ vectors[2:].T / 0.05
    scores[1, 0] += torch.tensor(5.0).log()
    expected = torch.nn.functional.cross_entropy(scores, torch.tensor([0, 1]))
    assert settings_loss(model, texts, [[1.0], [5.0]]) == pytest.approx(float(expected), abs=1e-4)


@torch.no_grad()
def test_the_guide_leaves_out_what_it_finds_as_relevant(model):
    candidates = [*POSITIVES, *NEGATIVES]
    vectors = torch.tensor(model.encode(QUERIES + candidates, normalize_embeddings=True))
    cosines = vectors[:2] @ vectors[2:].T
    margin = 0.3
    out = cosines > cosines[[0, 1], [0, 1]][:, None] - margin
    out[[0, 1], [0, 1]] = False
    assert 0 < int(out.sum()) < 6
    expected = torch.nn.functional.cross_entropy((cosines / 0.05).masked_fill(out, float("-inf")), torch.tensor([0, 1]))
    loss = TieredInfoNCELoss(model, LossSettings(guide_margin=margin), guide=copy.deepcopy(model))
    assert float(loss(columns(model, QUERIES, POSITIVES, NEGATIVES))) == pytest.approx(float(expected), abs=1e-4)
    assert loss.get_config_dict()["guide_margin"] == margin
    assert not any(one.requires_grad for one in loss.guide.parameters())


@torch.no_grad()
def test_matryoshka_averages_over_truncated_vectors(model):
    vectors = torch.tensor(model.encode(QUERIES + POSITIVES + NEGATIVES, normalize_embeddings=True))
    losses = []
    for dim in (16, 64, 384):
        cut = torch.nn.functional.normalize(vectors[:, :dim], dim=-1)
        losses.append(torch.nn.functional.cross_entropy(cut[:2] @ cut[2:].T / 0.05, torch.tensor([0, 1])))
    found = settings_loss(model, [QUERIES, POSITIVES, NEGATIVES], dims=(16, 64))
    assert found == pytest.approx(float(torch.stack(losses).mean()), abs=1e-4)


def test_the_documented_example_trains(tiny_folder, tmp_path):
    from datasets import Dataset
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments

    tiny = SentenceTransformer(str(tiny_folder), device="cpu")
    data = Dataset.from_dict(
        {"query": QUERIES, "positive": POSITIVES, "negative_1": NEGATIVES, "label": [[1.0], [0.5]]}
    )
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(tmp_path), max_steps=2, use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True
    )
    before = tiny[0].auto_model.encoder.layer[0].output.dense.weight.clone()
    loss = TieredInfoNCELoss(tiny)
    SentenceTransformerTrainer(model=tiny, args=arguments, train_dataset=data, loss=loss).train()
    assert not torch.equal(tiny[0].auto_model.encoder.layer[0].output.dense.weight, before)
