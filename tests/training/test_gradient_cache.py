"""Gradient caching changes the memory that a step takes, and nothing else."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer

from hins_memory.training.loss.gradient_cache import embed, micro_batches, text_keys
from hins_memory.training.loss.loss import TieredInfoNCELoss

QUERIES = [f"What did {name} say about day {day}?" for name in ("Ann", "Bo", "Cid") for day in range(4)]
POSITIVES = [f"Bo: on day {day} it rained {'and rained ' * day}" for day in range(12)]
NEGATIVES = [f"Ann: lunch number {day} 🍲" for day in range(12)]


@pytest.fixture
def model(tiny_folder) -> SentenceTransformer:
    return SentenceTransformer(str(tiny_folder), device="cpu").train()


def columns(model: SentenceTransformer, *texts: list[str]) -> list[dict]:
    return [model.preprocess(column) for column in texts]


def step(model: SentenceTransformer, **changes) -> tuple[float, dict[str, torch.Tensor]]:
    """One backward pass with dropout from a fixed seed: the loss, and the gradients by name."""
    loss = TieredInfoNCELoss(model, micro_batch_size=5, **changes)
    model.zero_grad()
    torch.manual_seed(3)
    value = loss(columns(model, QUERIES, POSITIVES, NEGATIVES))
    # as the trainer does when it accumulates
    (value / 2).backward()
    gradients = {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}
    return float(value.detach()), gradients


def test_loss_and_gradients_are_those_without_the_cache(model):
    assert any(isinstance(module, torch.nn.Dropout) and module.p for module in model.modules())
    plain_loss, plain = step(model, gradient_cache=False)
    cached_loss, cached = step(model, gradient_cache=True)
    assert cached_loss == pytest.approx(plain_loss, abs=1e-6)
    assert cached.keys() == plain.keys()
    for name, gradient in plain.items():
        assert torch.allclose(cached[name], gradient, atol=1e-6), name
    assert max(float(gradient.abs().max()) for gradient in plain.values()) > 1e-3


def test_random_numbers_go_on_as_if_drawn_once(model):
    step(model, gradient_cache=False)
    without = torch.rand(3)
    step(model, gradient_cache=True)
    assert torch.equal(torch.rand(3), without)


def held(model: SentenceTransformer, repeat: int, cache: bool) -> int:
    """The most bytes that autograd holds for a backward pass at any time of a step."""
    alive = most = 0

    class Kept:
        def __init__(self, tensor: torch.Tensor) -> None:
            nonlocal alive, most
            self.tensor, self.size = tensor, tensor.numel() * tensor.element_size()
            alive += self.size
            most = max(most, alive)

        def __del__(self) -> None:
            nonlocal alive
            alive -= self.size

    batch = columns(model, *([f"{n} {text}" for n in range(repeat) for text in part] for part in (QUERIES, POSITIVES)))
    loss = TieredInfoNCELoss(model, micro_batch_size=6, gradient_cache=cache)
    with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.tensor):
        loss(batch).backward()
    return most


@pytest.mark.slow
def test_the_batch_does_not_bound_the_memory(model):
    # four times the batch
    assert held(model, 4, cache=False) > 3 * held(model, 1, cache=False)
    assert held(model, 4, cache=True) < 1.5 * held(model, 1, cache=True)
    assert held(model, 4, cache=True) < 0.3 * held(model, 4, cache=False)


@pytest.mark.parametrize(("size", "limit"), [(2, 128), (16, 1024), (128, 1024)])
def test_gradients_are_cached_from_64_passes_or_1024_texts_on(model, size, limit):
    loss = TieredInfoNCELoss(model, micro_batch_size=size)
    assert (loss._caches(limit), loss._caches(limit + 1)) == (False, True)


def test_without_gradients_nothing_is_cached(model):
    model.eval()
    with torch.no_grad():
        values = [
            float(TieredInfoNCELoss(model, gradient_cache=cache)(columns(model, QUERIES, POSITIVES)))
            for cache in (False, True)
        ]
    assert values[0] == values[1]


texts = st.lists(st.lists(st.integers(1, 30_000), max_size=12), min_size=1, max_size=8)


def padded(rows: list[list[int]], left: bool, extra: int) -> dict[str, torch.Tensor]:
    length = max(map(len, rows)) + extra
    ids, mask = (torch.zeros(len(rows), length, dtype=torch.long) for _ in range(2))
    # padding tokens are not always 0
    ids += 7
    for number, row in enumerate(rows):
        place = slice(length - len(row), length) if left else slice(0, len(row))
        ids[number, place], mask[number, place] = torch.tensor(row, dtype=torch.long), 1
    return {"input_ids": ids, "attention_mask": mask}


@pytest.mark.slow
@given(texts, st.booleans(), st.integers(0, 5))
def test_texts_share_a_key_when_their_tokens_are_the_same(rows, left, extra):
    keys = text_keys(padded(rows, left, extra)).tolist()
    assert keys == text_keys(padded(rows, left=False, extra=0)).tolist()
    for one, left_key in zip(rows, keys, strict=True):
        for other, right_key in zip(rows, keys, strict=True):
            assert (left_key == right_key) == (one == other)


@settings(max_examples=50)
@given(texts, texts, st.booleans(), st.booleans(), st.integers(1, 5))
def test_micro_batches_hold_every_text_once_and_in_its_own_tokens(first, second, left, prompted, size):
    split = micro_batches(
        [padded(first, left, 1), {**padded(second, False, 2), **({"task": "document"} if prompted else {})}], size
    )
    found = {}
    for batch in split.batches:
        assert len(batch.rows) <= size
        for row, ids, mask in zip(
            batch.rows.tolist(), batch.features["input_ids"], batch.features["attention_mask"], strict=True
        ):
            assert row not in found
            found[row] = (ids[mask.bool()].tolist(), batch.features.get("task"))
    expected = [*((row, None) for row in first), *((row, "document" if prompted else None) for row in second)]
    assert [found[place] for place in split.places.tolist()] == expected
    assert len(found) == len({(tuple(row), task) for row, task in expected})


def test_a_repeated_text_is_embedded_once_with_the_gradient_of_all_its_places(model):
    model.eval()
    texts = [[*QUERIES, *QUERIES[:3]], [QUERIES[5], *NEGATIVES, NEGATIVES[0], NEGATIVES[0]]]
    together = micro_batches(columns(model, *texts), 5)
    assert sum(len(batch.rows) for batch in together.batches) == len(set(texts[0] + texts[1])) == 24
    alone = [micro_batches(columns(model, [text]), 1) for text in texts[0] + texts[1]]
    weights = torch.randn(len(alone), 32, generator=torch.Generator().manual_seed(0))
    gradients = []
    for vectors in (embed(model, together), torch.cat([embed(model, one) for one in alone])):
        model.zero_grad()
        (vectors * weights).sum().backward()
        gradients.append({name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None})
    for name, gradient in gradients[1].items():
        assert torch.allclose(gradients[0][name], gradient, atol=1e-4), name
