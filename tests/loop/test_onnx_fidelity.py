"""8 bits only where queries find on the log's held-out traffic what the encoder's own find; and what then serves."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hins_memory.database.engine import open_database
from hins_memory.encoders.encoder import Encoder
from hins_memory.errors import EncoderError, GateError, NotEnoughDataError
from hins_memory.evaluation.gate import GateSettings
from hins_memory.log.writer import LogWriter
from hins_memory.loop.pipeline import LoopSettings
from hins_memory.registry.prune import remove_version
from hins_memory.registry.registry import Registry
from hins_memory.types import Feedback, Memory, RankedMemory, Retrieval, Scope

pytest.importorskip("onnxruntime", reason="needs the extra onnx")

from tiny_bases import build_qwen3_embedding

from hins_memory.encoders.onnx.export import export_graph
from hins_memory.encoders.onnx.session import OnnxEncoder
from hins_memory.encoders.onnx.sided import SidedEncoder
from hins_memory.loop.onnx import export_onnx
from hins_memory.registry.onnx_exports import OnnxExports

WORDS = ["cello", "pottery", "tractor", "chess", "rowing", "violin", "bakery", "garden", "museum", "sailing"]
LOOP = LoopSettings(gate=GateSettings(min_queries=10))


@pytest.fixture
def traffic(settings):
    """Searches with the words of what they are to find, and feedback on it."""
    writer = LogWriter(open_database(settings.database_url))
    for user in ("ann", "bo"):
        scope = Scope(user=user)
        stored = [
            Memory(f"{user}{n}", scope, f"c{n}", f"{w} and {w}", user, time=float(n)) for n, w in enumerate(WORDS)
        ]
        asked = [
            Retrieval(scope, one.text, (RankedMemory(one.id, one.text, 0.5),), time=99.0, id=f"r{one.id}")
            for one in stored
        ]
        liked = [Feedback(one.id, "POSITIVE", f"r{one.id}", time=100.0) for one in stored]
        writer.write([*stored, *asked, *liked])


@pytest.mark.slow
def test_queries_in_8_bits_are_measured_and_serve_beside_documents_in_fp32(settings, tiny_version, traffic):
    made = export_onnx(settings, tiny_version.id, int8=True, loop=LOOP)
    found = made.record.fidelity
    assert found.queries >= 10
    assert found.before - found.after <= 0.003
    assert 0.9 < found.mean_cosine <= 1.0001
    exports = OnnxExports(settings)
    serving = exports.load(tiny_version.id, tiny_version.id, tiny_version.path, "onnx")
    assert isinstance(serving, SidedEncoder)
    own = Encoder.load(tiny_version.path).encode(["a cello"])
    assert float(abs(serving.encode(["a cello"]) - own).max()) < 1e-6
    # Not that of the encoder itself.
    assert 1e-6 < float(abs(serving.encode(["a cello"], role="query") - own).max()) < 0.1
    remove_version(Registry(settings), tiny_version)
    assert exports.find(tiny_version.id, "int8") is exports.find(tiny_version.id, "fp32") is None


@pytest.mark.slow
def test_queries_that_find_less_are_refused_with_the_figures(settings, tiny_version, traffic, tmp_path):
    # As if 8 bits had lost everything: the graph is that of another encoder.
    record = export_graph(Encoder.load(build_qwen3_embedding(tmp_path / "other")), tmp_path / "graph")
    exports = OnnxExports(settings)
    exports.add(tmp_path / "graph", replace(record, version=tiny_version.id, space=tiny_version.id))
    with pytest.raises(GateError, match=r"lose .* points of nDCG@10 on \d+ held-out queries .* mean cosine"):
        export_onnx(settings, tiny_version.id, int8=True, loop=LOOP)
    assert exports.find(tiny_version.id, "int8") is None
    with pytest.raises(NotEnoughDataError, match="judged by at least 500"):
        export_onnx(settings, tiny_version.id, int8=True, loop=LoopSettings(gate=GateSettings(min_queries=500)))


@pytest.mark.slow
def test_without_an_export_torch_serves_or_the_error_says_what_to_do(settings, tiny_version):
    exports = OnnxExports(settings)
    known = tiny_version.id, tiny_version.id, tiny_version.path
    assert isinstance(exports.load(*known, "auto"), Encoder)
    with pytest.raises(EncoderError, match=f"hins encoders export {tiny_version.id} --onnx"):
        exports.load(*known, "onnx")
    export_onnx(settings, tiny_version.id)
    assert isinstance(exports.load(*known, "auto"), OnnxEncoder)
    assert isinstance(exports.load(*known, "torch"), Encoder)
