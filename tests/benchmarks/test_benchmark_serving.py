"""The benchmark of servers: what its clients count, and what they take for another version's vector."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from serving import _figures

from hins_memory.config import Settings
from hins_memory.encoders.encoder import Encoder
from hins_memory.registry.registry import Registry
from parts.serving.clients import measure
from parts.serving.flips import Flipped, References, run_load
from parts.serving.project import add_shifted_tower
from parts.serving.servers import Server, free_port

uvicorn = pytest.importorskip("uvicorn", reason="needs the extra serve")


@pytest.fixture
def served(tmp_path, tiny_folder, monkeypatch):
    """A server of two towers in this process, with the registry that they are in."""
    import psutil

    from hins_memory.server.app import create_app

    monkeypatch.setenv("HINS_BASE", str(tiny_folder))
    registry, documents = Registry(Settings(home=tmp_path, project="flips")), Encoder.load(tiny_folder)
    seeds = {add_shifted_tower(registry, documents, tmp_path / f"tower{seed}", seed).id: seed for seed in (1, 2)}
    port = free_port()
    config = uvicorn.Config(create_app(registry.settings), port=port, log_config=None, access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.02)
    yield Server("hins", port, documents.version, psutil.Process()), registry, References.of(documents, 8, seeds)
    server.should_exit = True
    thread.join()


@pytest.mark.slow
def test_the_load_counts_requests_and_vectors_of_other_versions(served):
    server, registry, references = served
    found = measure(server.port, f"hins-{server.model}", 2, 0.3, lambda: "Ann")
    assert found.failed == 0
    assert len(found.seconds) >= 2
    assert measure(server.port, "hins-v0009-00000000", 1, 0.1, lambda: "Ann").failed >= 1
    right = run_load(server, registry, references, 2, (1.5, 0.6), 0)
    assert right.requests > 0
    assert right.flips >= 1
    assert (right.failed, right.wrong) == (0, 0)
    versions = list(references.shifts)
    other_way = [references.shifts[version] for version in reversed(versions)]
    exchanged = References(references.documents, dict(zip(versions, other_way, strict=True)))
    assert run_load(server, registry, exchanged, 2, (0.5, 9.0), 0).wrong > 0


def test_growth_is_measured_after_the_start():
    assert Flipped(rss=[100.0] * 4 + [200.0] * 12).growth_mib() == 0
    assert Flipped(rss=list(np.linspace(100, 260, 16))).growth_mib() > 50


def test_ratios_are_over_the_peer_of_the_same_number_of_clients():
    rows = [
        {"part": "process", "embedder": "torch", "p50_ms": 8.0},
        {"part": "process", "embedder": "mem0", "p50_ms": 9.0},
        {"part": "process", "embedder": "onnx fp32", "p50_ms": 3.0},
        {"part": "http", "server": "unbatched", "clients": 64, "per_second": 50.0, "failed": 0},
        {"part": "http", "server": "hins torch", "clients": 64, "per_second": 200.0, "failed": 0},
    ]
    figures = _figures(rows)
    assert figures["p50_ratio_onnx_fp32_over_mem0"] == 3.0
    assert figures["ratio_hins_torch_64_over_unbatched"] == 4.0
