"""A process that serves ONNX exports alone loads no torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("onnxruntime", reason="needs the extra onnx")

SERVE = """
import sys
from fastapi.testclient import TestClient
from hins_memory.config import Settings
from hins_memory.server.app import create_app
from hins_memory.server.settings import ServeSettings

app = create_app(Settings(home=sys.argv[1], project="test"), ServeSettings(engine="onnx"))
with TestClient(app, base_url="http://127.0.0.1") as client:
    for role in ("query", "document"):
        body = {"model": f"hins-{sys.argv[2]}:{role}", "input": ["Ann plays the cello."]}
        answer = client.post("/v1/embeddings", json=body)
        assert answer.status_code == 200, answer.text
        print(len(answer.json()["data"][0]["embedding"]))
heavy = {"torch", "transformers", "sentence_transformers", "sklearn"} & sys.modules.keys()
assert not heavy, heavy
"""


@pytest.mark.slow
def test_a_process_that_serves_onnx_alone_loads_no_torch(settings, tiny_version, tmp_path):
    from hins_memory.loop.onnx import export_onnx

    export_onnx(settings, tiny_version.id)
    command = [sys.executable, "-c", SERVE, str(settings.home), tiny_version.id]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["32", "32"]
