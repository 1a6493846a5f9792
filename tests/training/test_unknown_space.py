"""An encoder of a space that is known by its vectors alone: a local one behind a linear map, and a tower on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from train_world import examples, quick

from hins_memory.encoders.encoder import Encoder
from hins_memory.encoders.score_offset import score_offset_of
from hins_memory.errors import NotEnoughDataError, TrainingError
from hins_memory.training import encoder_of_space, train_encoder
from hins_memory.training.tower.model import TwoSides

DIM = 48
NOTES = [f"note {day}: {what}" for day in range(40) for what in ("the cello", "a game of chess", "clay", "the river")]


@pytest.fixture
def hosted(tiny_folder: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Texts, their vectors under another encoder of more dimensions, and the map that it is; it has no weights here."""
    rows = examples()
    texts = [
        *NOTES,
        *dict.fromkeys(row.positive.text for row in rows),
        *{one.text for r in rows for one in r.negatives},
    ]
    other = np.random.default_rng(0).normal(size=(32, DIM)).astype(np.float32)
    return texts, Encoder.load(tiny_folder).encode(texts) @ other, other


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@pytest.mark.slow
def test_queries_of_a_local_encoder_are_mapped_into_the_space(tiny_folder, hosted):
    texts, vectors, other = hosted
    base = Encoder.load(tiny_folder)
    encoder = encoder_of_space(texts, vectors, base=base, space="hosted")
    assert (encoder.dim, encoder.space) == (DIM, "hosted")
    assert score_offset_of(encoder.model) is None
    stored = encoder.encode([texts[3], "never stored", texts[0]])
    assert np.allclose(stored[[0, 2]], unit(vectors)[[3, 0]], atol=1e-6)
    asked = ["Who went to the river?", "never stored"]
    expected = unit(base.encode(asked, role="query") @ other)
    assert (encoder.encode(asked, role="query") * expected).sum(axis=1).min() > 0.97
    assert base.dim == 32, "the local encoder stays as it is"


@pytest.mark.slow
def test_a_tower_learns_queries_against_what_is_stored(tmp_path, tiny_folder, hosted):
    texts, vectors, _ = hosted
    encoder = encoder_of_space(texts, vectors, base=tiny_folder, space="hosted")
    result = train_encoder(
        examples(), tmp_path / "queries", base=encoder, settings=quick(mode="tower", learning_rate=1e-2, min_steps=40)
    )
    assert (result.manifest.mode, result.manifest.document_space) == ("tower", "hosted")
    plain = SentenceTransformer(str(result.folder), trust_remote_code=False)
    trained = TwoSides(plain, encoder)

    def ranks(found: Encoder) -> float:
        """The mean reciprocal rank of what 24 questions are to find among everything that is stored."""
        rows = examples()
        scores = found.encode([row.positive.query for row in rows], role="query") @ unit(vectors).T
        right = [texts.index(row.positive.text) for row in rows]
        return float(np.mean([1 / (1 + (one > one[place]).sum()) for one, place in zip(scores, right, strict=True)]))

    assert ranks(trained) > ranks(encoder) + 0.1


def test_vectors_that_say_nothing_of_a_space_are_refused(tiny_folder):
    vectors = np.ones((20, DIM))
    texts = [f"text {number}" for number in range(20)]
    with pytest.raises(TrainingError, match="20 texts and vectors of shape"):
        encoder_of_space(texts, vectors[:19], base=tiny_folder, space="hosted")
    with pytest.raises(NotEnoughDataError, match="at least 16"):
        encoder_of_space(texts[:8], vectors[:8], base=tiny_folder, space="hosted")
    vectors[4] = 0
    with pytest.raises(TrainingError, match="zero or not finite"):
        encoder_of_space(texts, vectors, base=tiny_folder, space="hosted")
