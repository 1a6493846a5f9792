"""An export embeds as the encoder does, whatever its architecture, and refuses what it cannot."""

from __future__ import annotations

import numpy as np
import pytest

from hins_memory.encoders.encoder import Encoder
from hins_memory.errors import EncoderError

pytest.importorskip("onnxruntime", reason="needs the extra onnx")

from tiny_bases import TEXTS, build_bge_m3, build_qwen3_embedding

from hins_memory.encoders.onnx.export import export_graph
from hins_memory.encoders.onnx.session import OnnxEncoder

WRITTEN = [*TEXTS, "", "half a pair \ud83d of a surrogate", "long " * 500]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tiny", "bge-m3", "qwen3"])
def test_an_export_gives_the_encoders_vectors_of_both_sides(kind, tiny_folder, tmp_path):
    if kind == "tiny":
        folder = tiny_folder
    else:
        folder = (build_bge_m3 if kind == "bge-m3" else build_qwen3_embedding)(tmp_path / kind)
    encoder = Encoder.load(folder)
    expected = {role: encoder.encode(WRITTEN, role=role) for role in ("query", "document")}
    tokens = encoder.count_tokens(WRITTEN)
    record = export_graph(encoder, tmp_path / "export")
    record.write(tmp_path / "export")
    made = OnnxEncoder.load(tmp_path / "export")
    assert (made.version, made.space, made.dim) == (encoder.version, encoder.space, encoder.dim)
    assert made.count_tokens(WRITTEN) == tokens
    for role, vectors in expected.items():
        cosines = (made.encode(WRITTEN, role=role) * vectors).sum(axis=1)
        # The weights of Qwen3 are in bfloat16, in which torch computes too.
        assert cosines.min() > (0.995 if kind == "qwen3" else 0.99999)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["query_version", "tower_version"])
def test_of_a_version_with_two_sides_queries_are_exported(kind, request, tmp_path):
    encoder = Encoder.load(request.getfixturevalue(kind).path)
    expected = encoder.encode(TEXTS, role="query")
    record = export_graph(encoder, tmp_path / "export")
    made = OnnxEncoder(tmp_path / "export", record)
    assert made.space != made.version
    np.testing.assert_allclose(made.encode(TEXTS, role="query"), expected, atol=1e-4)
    with pytest.raises(EncoderError, match="queries alone"):
        made.encode(TEXTS, role="document")


def test_a_damaged_export_is_refused(tiny_folder, tmp_path):
    export_graph(Encoder.load(tiny_folder), tmp_path / "export").write(tmp_path / "export")
    with (tmp_path / "export" / "model.onnx").open("r+b") as stream:
        stream.seek(-1, 2)
        stream.write(b"\0\0")
    with pytest.raises(EncoderError, match=r"model\.onnx does not match its digest"):
        OnnxEncoder.load(tmp_path / "export")
