"""A server under load, while versions flip, when it is full, and when it is told to stop."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from waiting import until

from hins_memory.config import Settings
from hins_memory.encoders.encoder import Encoder
from hins_memory.registry.registry import EncoderVersion, Registry


@pytest.mark.slow
def test_every_vector_is_of_the_version_that_it_is_labelled_with_while_versions_flip(
    running: Callable[..., str], settings: Settings, tiny_version: EncoderVersion, tower_version: EncoderVersion
):
    registry = Registry(settings)
    registry.promote(tiny_version.id)
    texts = [f"text {one} " * (1 + one % 40) for one in range(200)]
    expected = {
        version.id: Encoder.load(version.path).encode(texts, role="query") for version in (tiny_version, tower_version)
    }
    # One encoder at a time in memory: every flip unloads one under the requests.
    url, seen, stop = running(max_loaded=1), set(), threading.Event()

    def flip() -> None:
        while not stop.is_set():
            for version in (tower_version, tiny_version):
                registry.promote(version.id)
                stop.wait(0.3)

    async def ask(client: httpx.AsyncClient, row: int) -> None:
        pinned = [f"hins-{tiny_version.id}:query", f"hins-{tower_version.id}:query"]
        model = (f"hins-current@{tiny_version.id}:query", *pinned)[row % 3]
        found = await client.post("/v1/embeddings", json={"model": model, "input": texts[row]})
        assert found.status_code == 200, found.text
        version = found.headers["X-Hins-Version"]
        seen.add(version)
        assert found.json()["model"] == f"hins-{version}"
        assert row % 3 == 0 or f"hins-{version}:query" == model
        # Batches of 16 texts and more are computed in bfloat16 where the processor has it.
        np.testing.assert_allclose(found.json()["data"][0]["embedding"], expected[version][row], atol=2e-2)

    async def ask_all() -> None:
        limits = httpx.Limits(max_connections=200)
        async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as client:
            await asyncio.gather(*(ask(client, row) for row in range(200)))

    assert np.abs(expected[tiny_version.id] - expected[tower_version.id]).max(axis=1).min() > 0.05
    flipping = threading.Thread(target=flip)
    flipping.start()
    try:
        asyncio.run(ask_all())
    finally:
        stop.set()
        flipping.join()
    assert seen == {tiny_version.id, tower_version.id}


def test_a_full_queue_says_when_to_come_again_and_metrics_count_it(
    running: Callable[..., str], tiny_version: EncoderVersion, monkeypatch: pytest.MonkeyPatch
):
    url = running(max_waiting=1, max_batch=1)
    body = {"model": f"hins-{tiny_version.id}", "input": ["text"] * 60}
    refused, encode = threading.Event(), Encoder.encode

    def held_up(*arguments: Any, **options: Any) -> Any:
        assert refused.wait(60)
        return encode(*arguments, **options)

    # Whatever is computed takes until one of the others was told that the queue is full.
    monkeypatch.setattr(Encoder, "encode", held_up)

    async def ask_all() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            responses = []
            for asked in asyncio.as_completed([client.post("/v1/embeddings", json=body) for _ in range(8)]):
                responses.append(await asked)
                refused.set()
            return responses

    responses = asyncio.run(ask_all())
    statuses = [one.status_code for one in responses]
    assert set(statuses) == {200, 429}
    full = next(one for one in responses if one.status_code == 429)
    assert 1 <= int(full.headers["Retry-After"]) <= 60
    assert full.json()["error"]["type"] == "rate_limit_error"
    metrics = httpx.get(f"{url}/metrics").text
    assert f'hins_requests_total{{route="/v1/embeddings",status="429"}} {float(statuses.count(429))}' in metrics
    assert f'hins_refused_total{{code="queue_full"}} {float(statuses.count(429))}' in metrics
    assert f'hins_serving_version{{version="{tiny_version.id}"}} 0.0' in metrics
    assert "hins_waiting_texts 0.0" in metrics


def test_a_client_that_goes_away_leaves_the_queue(running: Callable[..., str], tiny_version: EncoderVersion):
    url = running(max_batch=1)
    body = {"model": f"hins-{tiny_version.id}", "input": ["long " * 300] * 2000}
    httpx.post(f"{url}/v1/embeddings", json={**body, "input": "x"}, timeout=60)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{url}/v1/embeddings", json=body, timeout=httpx.Timeout(60, read=0.3))
    until(lambda: "hins_waiting_texts 0.0" in httpx.get(f"{url}/metrics").text)
    assert "hins_cancelled_total 1.0" in httpx.get(f"{url}/metrics").text


def test_a_body_that_does_not_come_is_not_waited_for(running: Callable[..., str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("hins_memory.server.middleware._BODY_SECONDS", 0.2)
    host, port = running().removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        head = "POST /v1/embeddings HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
        assert b" 408 " in connection.recv(65536).split(b"\r\n")[0]


@pytest.mark.slow
def test_released_versions_are_not_served_and_may_be_pruned(
    client: Callable[..., Any], settings: Settings, tiny_version: EncoderVersion, tower_version: EncoderVersion
):
    from typer.testing import CliRunner

    from hins_memory.cli import app
    from hins_memory.registry.prune import prune

    asked, registry = client(), Registry(settings)
    body = {"model": f"hins-{tiny_version.id}", "input": "x"}
    assert asked.post("/v1/embeddings", json=body).status_code == 200
    assert prune(registry, 1, dry_run=True).kept[tiny_version.id].startswith("asked for over HTTP")
    options = ["--home", str(settings.home), "--project", settings.project, "encoders", "release", tiny_version.id]
    for undo, status in (([], 404), (["--undo"], 200), ([], 404)):
        assert CliRunner().invoke(app, [*options, *undo]).exit_code == 0
        until(lambda status=status: asked.post("/v1/embeddings", json=body).status_code == status)
        found = asked.post("/v1/embeddings", json=body)
        assert found.status_code == status
    assert found.json()["error"]["code"] == "model_released"
    assert prune(registry, 1).removed == (tiny_version.id,)


def test_the_server_without_a_key_is_not_bound_where_others_reach_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    from hins_memory.errors import ConfigError
    from hins_memory.server.run import run_server

    monkeypatch.delenv("HINS_API_KEY", raising=False)
    for host in ("0.0.0.0", "::", "192.168.1.5", "example.org", ""):
        with pytest.raises(ConfigError, match="HINS_API_KEY"):
            run_server(settings, host, 0)


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_base")
def test_sigterm_answers_what_was_asked_and_ends(
    settings: Settings, tiny_version: EncoderVersion, tmp_path: Path, forked_python: str
):
    command = [forked_python, "-m", "hins_memory", "--home", str(settings.home), "--project", settings.project]
    environment = {**os.environ, "HINS_API_KEY": "key", "PYTHONUNBUFFERED": "1"}
    log = tmp_path / "log"
    with log.open("wb") as stream:
        command += ["serve", "--port", "0", "--log-format", "json"]
        process = subprocess.Popen(command, env=environment, stderr=stream)
    try:
        while not (port := re.search(r"http://127\.0\.0\.1:(\d+)", log.read_text())):
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        client = httpx.Client(
            base_url=f"http://127.0.0.1:{port[1]}", headers={"Authorization": "Bearer key"}, timeout=60
        )
        while client.get("/health").status_code != 200:
            time.sleep(0.05)
        answers: list[httpx.Response] = []
        body = {"model": f"hins-{tiny_version.id}", "input": ["long " * 300] * 500}
        headers = {"X-Request-ID": "mine-1"}
        asking = threading.Thread(
            target=lambda: answers.append(client.post("/v1/embeddings", json=body, headers=headers))
        )
        asking.start()
        while "hins_texts_total{" not in (found := client.get("/metrics").text) and "hins_waiting_texts 0.0" in found:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        asking.join(60)
        assert answers[0].status_code == 200
        assert len(answers[0].json()["data"]) == 500
        assert process.wait(30) in (0, -signal.SIGTERM)
    finally:
        process.kill()
        process.wait()
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    entry = next(one for one in entries if one.get("request_id") == "mine-1")
    assert (entry["route"], entry["status"], entry["level"]) == ("/v1/embeddings", 200, "info")
    assert "long" not in log.read_text()
