"""The encoder: unit vectors, roles, a cache that never changes an answer, threads, and clear errors."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from hins_memory.common.files import file_digest
from hins_memory.encoders.encoder import Encoder, resolve_model
from hins_memory.encoders.manifest import MANIFEST_NAME
from hins_memory.errors import EncoderError

TEXTS = ["Ann plays the cello.", "", "谁在弹大提琴？", "🎻🎻", "x" * 100_000, "Ann plays the cello."]


def test_unit_vectors_of_the_right_shape_and_type(stock_encoder):
    vectors = stock_encoder.encode(TEXTS)
    assert vectors.shape == (len(TEXTS), stock_encoder.dim)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert np.array_equal(vectors[0], vectors[-1])
    assert stock_encoder.encode([]).shape == (0, stock_encoder.dim)


def test_the_cache_is_bounded_and_changes_no_answer(stock_encoder):
    small = Encoder(stock_encoder.model, "test", cache_size=2)
    first = small.encode(["a", "b", "c"])
    first_copy = first.copy()
    first[:] = 0  # what a caller does to the result must not reach the cache
    assert np.allclose(small.encode(["a", "b", "c"]), first_copy, atol=1e-6)
    assert len(small._cache) == 2


def test_roles_use_the_models_prompts(stock_encoder):
    model = stock_encoder.model
    before = dict(model.prompts)
    try:
        model.prompts = {"query": "query: ", "document": ""}
        encoder = Encoder(model, "test")
        query, document = encoder.encode(["Ann"], role="query"), encoder.encode(["Ann"], role="document")
        assert not np.allclose(query, document, atol=1e-3)
        assert np.allclose(query, encoder.encode(["query: Ann"], role="document"), atol=1e-5)
    finally:
        model.prompts = before


@pytest.mark.slow
def test_threads_get_the_vectors_of_their_own_texts(stock_encoder):
    encoder = Encoder(stock_encoder.model, "test", cache_size=8)
    texts = [f"text number {number}" for number in range(40)]
    expected = encoder.encode(texts)
    with ThreadPoolExecutor(8) as pool:
        rows = list(pool.map(lambda text: encoder.encode([text])[0], texts))
    # a batch may be computed in bfloat16, single texts are not
    assert np.allclose(np.stack(rows), expected, atol=2e-3)
    assert ((np.stack(rows) * expected).sum(1) > 0.9995).all()


@pytest.mark.parametrize("bad", ["one text", ["fine", None], [1]])
def test_what_is_no_list_of_strings_is_refused(stock_encoder, bad):
    with pytest.raises(EncoderError, match="sequence of strings"):
        stock_encoder.encode(bad)


def test_half_a_surrogate_pair_is_encoded_as_the_replacement_character(stock_encoder):
    broken, replaced = stock_encoder.encode(["Ann \ud83d", "Ann \ufffd"])
    assert np.allclose(broken, replaced, atol=1e-6)


def test_unknown_role_and_missing_folders_are_refused(stock_encoder, tmp_path):
    with pytest.raises(EncoderError, match="not a role"):
        stock_encoder.encode(["x"], role="passage")
    with pytest.raises(EncoderError, match="no encoder folder"):
        resolve_model(tmp_path / "nowhere")
    with pytest.raises(EncoderError, match="not an encoder"):
        resolve_model(tmp_path)


def test_a_name_that_nobody_has_says_what_to_give():
    with pytest.raises(EncoderError, match="local sentence-transformers folder"):
        Encoder.load("nobody/has-this-model")


def version_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "version"
    shutil.copytree(resolve_model("stock"), folder)
    files = {path.relative_to(folder).as_posix(): file_digest(path) for path in folder.rglob("*") if path.is_file()}
    manifest = {"id": "v0001-01234567", "created": 1.0, "files": files}
    (folder / MANIFEST_NAME).write_text(json.dumps(manifest))
    return folder


@pytest.mark.slow
def test_a_version_folder_names_itself_and_a_damaged_one_is_refused(tmp_path):
    folder = version_folder(tmp_path)
    assert Encoder.load(folder).version == "v0001-01234567"
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(EncoderError, match="missing or damaged"):
        Encoder.load(folder)
