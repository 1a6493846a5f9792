"""Spans of OpenTelemetry hold what happened, and nothing that a user said."""

from __future__ import annotations

from pathlib import Path

import pytest

from hins_memory.common.tracing import span, traced
from hins_memory.encoders.encoder import Encoder


def test_stages_are_spans_and_errors_are_noted_without_their_messages(tiny_folder: Path):
    export = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    exporter, provider = export.InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)

    @traced("hins.train")
    def fail() -> None:
        raise ValueError("Ann's secret")

    with span("hins.search", store="here"):
        Encoder.load(tiny_folder).encode(["Ann's secret"], role="query")
    with pytest.raises(ValueError, match="secret"):
        fail()
    encode, search, train = exporter.get_finished_spans()
    assert [one.name for one in (encode, search, train)] == ["hins.encode", "hins.search", "hins.train"]
    assert encode.parent.span_id == search.context.span_id
    assert dict(encode.attributes)["hins.role"] == "query"
    assert not train.status.is_ok
    assert "secret" not in "".join(one.to_json() for one in exporter.get_finished_spans())
