"""Bases of other makes than the default: BGE-M3's and Qwen3-Embedding's kinds, tiny and with random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from tiny_bases import INSTRUCTION, build_bge_m3, build_qwen3_embedding
from train_world import examples, quick

from hins_memory.encoders.encoder import Encoder
from hins_memory.training import train_encoder
from hins_memory.training.loss.loss import TieredInfoNCELoss, embed_sorted

pytestmark = pytest.mark.slow

TEXTS = ["cello it is", "Bo: chess it is, 谢谢 🎻", "", "pottery and rowing " * 40, "Ann"]


@pytest.fixture(scope="module")
def bge_m3(tmp_path_factory) -> Path:
    return build_bge_m3(tmp_path_factory.mktemp("bases") / "bge-m3")


@pytest.fixture(scope="module")
def qwen3(tmp_path_factory) -> Path:
    return build_qwen3_embedding(tmp_path_factory.mktemp("bases") / "qwen3-embedding")


@pytest.fixture(params=["bge_m3", "qwen3"])
def base(request) -> Path:
    return request.getfixturevalue(request.param)


def margin(encoder: Encoder) -> float:
    """Return by how much positives are nearer to their queries than hard negatives are, on average."""
    rows = examples()
    queries = encoder.encode([row.positive.query for row in rows], role="query")
    positives = encoder.encode([row.positive.text for row in rows])
    negatives = encoder.encode([row.negatives[0].text for row in rows])
    return float(((positives - negatives) * queries).sum(axis=1).mean())


def test_the_vectors_are_those_of_the_models_own_pooling(bge_m3, qwen3):
    for folder, place in ((bge_m3, 0), (qwen3, -1)):
        encoder = Encoder.load(folder)
        transformer = encoder.model[0]
        tokens = encoder.model.tokenizer("Ann: cello it is", return_tensors="pt")
        with torch.no_grad():
            states = transformer.auto_model(**tokens).last_hidden_state.float()[0]
        expected = torch.nn.functional.normalize(states[place], dim=0).numpy()
        assert np.allclose(encoder.encode(["Ann: cello it is"])[0], expected, atol=2e-2)


def test_queries_get_their_instruction_and_documents_none(qwen3, bge_m3):
    encoder = Encoder.load(qwen3)
    asked = encoder.encode(["Who plays?"], role="query")
    assert np.allclose(asked, encoder.encode([f"{INSTRUCTION}Who plays?"]), atol=1e-2)
    assert np.abs(asked - encoder.encode(["Who plays?"])).max() > 0.05
    without = Encoder.load(bge_m3)
    assert np.allclose(without.encode(["Who plays?"], role="query"), without.encode(["Who plays?"]), atol=1e-5)


def test_texts_of_all_lengths_embed_in_training_as_they_do_in_use(base):
    model = Encoder.load(base).model.float().eval()
    expected = model.encode(TEXTS, normalize_embeddings=True)
    columns = [model.preprocess(TEXTS[:2]), model.preprocess(TEXTS[2:])]
    with torch.no_grad():
        found = embed_sorted(model, columns, 2).numpy()
    assert np.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(("mode", "rate"), [("lora", 5e-3), ("full", 1e-3)])
def test_it_learns_and_is_saved_as_it_was_loaded(base, mode, rate, tmp_path):
    settings = quick(mode=mode, learning_rate=rate, min_steps=24)
    result = train_encoder(examples(), tmp_path / "model", base=base, settings=settings)
    losses = result.manifest.metrics.loss
    assert np.mean(losses[-4:]) < np.mean(losses[:4]) - 0.4
    before, after = SentenceTransformer(str(base)), SentenceTransformer(str(result.folder))
    # What may come after them brings the scores back to the base's scale.
    assert [type(module) for module in after][:3] == [type(module) for module in before]
    assert after[1].pooling_mode == before[1].pooling_mode
    assert after.prompts == before.prompts
    assert after.max_seq_length == before.max_seq_length
    assert after.tokenizer.padding_side == before.tokenizer.padding_side
    assert margin(Encoder.load(result.folder)) > margin(Encoder.load(base)) + 0.02


def test_weights_in_bfloat16_are_trained_in_float32(qwen3, tmp_path):
    assert Encoder.load(qwen3).model[0].auto_model.dtype == torch.bfloat16
    # Steps this small vanish where weights have three digits.
    settings = quick(mode="full", learning_rate=1e-6, min_steps=4)
    trained = Encoder.load(train_encoder(examples(), tmp_path / "model", base=qwen3, settings=settings).folder)
    assert trained.model[0].auto_model.dtype == torch.float32
    old = dict(Encoder.load(qwen3).model[0].named_parameters())
    moved = [name for name, one in trained.model[0].named_parameters() if not torch.equal(one, old[name].float())]
    assert len(moved) == len(old)


def test_weights_in_float16_embed_on_a_cpu_like_those_in_float32(bge_m3, tmp_path):
    halved = tmp_path / "halved"
    SentenceTransformer(str(bge_m3), device="cpu").half().save(str(halved))
    # Many texts at a time are computed in bfloat16 where the processor has it.
    many = [f"{number} {text}" for number in range(8) for text in TEXTS]
    whole, half = (Encoder.load(folder, device="cpu").encode(many) for folder in (bge_m3, halved))
    assert np.allclose(whole, half, atol=3e-2)


def test_the_loss_takes_the_models_own_prompts_into_account(qwen3):
    model = Encoder.load(qwen3).model.float().eval()
    rows = examples()[:4]
    asked = [row.positive.query for row in rows]
    documents = [row.positive.text for row in rows]
    columns = [model.preprocess(asked, prompt=INSTRUCTION), model.preprocess(documents)]
    with torch.no_grad():
        loss = float(TieredInfoNCELoss(model)(columns))
    queries = torch.tensor(model.encode_query(asked, normalize_embeddings=True))
    found = torch.tensor(model.encode_document(documents, normalize_embeddings=True))
    expected = torch.nn.functional.cross_entropy(queries @ found.T / 0.05, torch.arange(4))
    assert loss == pytest.approx(float(expected), abs=1e-3)
