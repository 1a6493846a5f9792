"""The loss: equal to a plain reference, deaf to padding, and blind to candidates that are no negatives."""

from __future__ import annotations

import pytest
import torch
from sentence_transformers import SentenceTransformer

from hins_memory.training.loss.loss import TieredInfoNCELoss, embed_sorted


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


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("size", [1, 2, 5])
def test_micro_batches_do_not_change_the_vectors(model, size):
    texts = ["a", "a much longer text " * 20, "谁在弹大提琴？ 🎻", "", "middle sized text here"]
    together = embed_sorted(model, columns(model, texts), 8)
    assert torch.allclose(embed_sorted(model, columns(model, texts[:2], texts[2:]), size), together, atol=1e-5)
    assert torch.allclose(together.norm(dim=1), torch.ones(5), atol=1e-5)


@pytest.mark.slow
def test_the_documented_example_trains(tiny_folder, tmp_path):
    from datasets import Dataset
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments

    tiny = SentenceTransformer(str(tiny_folder), device="cpu")
    data = Dataset.from_dict({"query": QUERIES, "positive": POSITIVES, "negative_1": NEGATIVES})
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(tmp_path), max_steps=2, use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True
    )
    before = tiny[0].auto_model.encoder.layer[0].output.dense.weight.clone()
    loss = TieredInfoNCELoss(tiny)
    SentenceTransformerTrainer(model=tiny, args=arguments, train_dataset=data, loss=loss).train()
    assert not torch.equal(tiny[0].auto_model.encoder.layer[0].output.dense.weight, before)
