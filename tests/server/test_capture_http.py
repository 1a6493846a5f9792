"""Capture over HTTP: each event once by its id, all of a request or none, and errors that say what to do."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")
from fastapi.testclient import TestClient
from postgresql import postgresql_schema

from hins_memory.config import Settings
from hins_memory.database.engine import open_database
from hins_memory.log.capture import flush_all
from hins_memory.log.reader import LogReader
from hins_memory.plugins.hookspecs import hookimpl
from hins_memory.plugins.manager import get_plugin_manager
from hins_memory.server.app import create_app
from hins_memory.types import Event, Turn

ANN = {"user": "ann"}
SEARCH: dict[str, Any] = {
    "id": "s1",
    "scope": ANN,
    "query": "Which instrument?",
    "results": [{"memory_id": "m1", "text": "Ann plays the oboe.", "score": 0.5}],
}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, project="p")


@pytest.fixture
def client(settings: Settings) -> TestClient:
    return TestClient(create_app(settings), base_url="http://localhost")


def logged(settings: Settings) -> list[dict[str, Any]]:
    assert flush_all()
    return list(LogReader(open_database(settings.database_url)).export())


def test_every_kind_of_event_arrives(client: TestClient, settings: Settings) -> None:
    turn = {"id": "t1", "scope": ANN, "conversation": "c", "speaker": "Ann", "text": "The oboe now.", "time": 7}
    memory = {"id": "m1", "scope": ANN, "conversation": "c", "text": "Ann plays the oboe.", "turn_ids": ["t1"]}
    assert client.post("/v1/turns", json=turn).json()["ids"] == ["t1"]
    assert client.post("/v1/memories", json=[memory, {**memory, "id": "m2", "text": "Old."}]).json()["recorded"] == 2
    searched = {**SEARCH, "encoder_version": "hins-v0003-0123abcd:query"}
    assert client.post("/v1/retrievals", json=searched).json()["recorded"] == 1
    outcomes = [
        {"type": "answer", "retrieval_id": "s1", "text": "The oboe."},
        {"type": "feedback", "retrieval_id": "s1", "memory_id": "m1", "polarity": "POSITIVE"},
    ]
    assert client.post("/v1/outcomes", json=outcomes).json()["recorded"] == 2
    assert client.post("/v1/deletions", json={"scope": ANN, "memory_id": "m2"}).json()["recorded"] == 1
    found = logged(settings)
    assert sorted(one["type"] for one in found) == ["answer", "feedback", "memory", "memory", "retrieval", "turn"]
    assert [one["id"] for one in found if one.get("deleted_at")] == ["m2"]
    assert next(one for one in found if one["type"] == "turn")["time"] == 7
    # The id of a model that embeds is that of its version.
    assert next(one for one in found if one["type"] == "retrieval")["encoder_version"] == "v0003-0123abcd"


@pytest.mark.parametrize("where", ["in the queue", "on disk", "in PostgreSQL"])
def test_an_id_is_one_event(settings: Settings, where: str, request: pytest.FixtureRequest) -> None:
    if where == "in PostgreSQL":
        server = request.getfixturevalue("postgresql_server")
        settings = replace(settings, log_url=postgresql_schema(server, "capture_http"))
    client = TestClient(create_app(settings), base_url="http://localhost")
    assert client.post("/v1/retrievals", json=SEARCH).json()["recorded"] == 1
    answer = {"type": "answer", "retrieval_id": "s1", "text": "The oboe."}
    assert client.post("/v1/outcomes", json=answer).json()["recorded"] == 1
    if where != "in the queue":
        assert flush_all()
        # As another process, which knows only what is on disk.
        client = TestClient(create_app(settings), base_url="http://localhost")
    again = client.post("/v1/retrievals", json=SEARCH)
    assert (again.status_code, again.json()["known"]) == (200, 1)
    assert client.post("/v1/outcomes", json=answer).json()["known"] == 1
    other = client.post("/v1/retrievals", json=[{**SEARCH, "id": "s2"}, {**SEARCH, "query": "Who?"}])
    assert other.status_code == 409
    assert "use a new id" in other.json()["error"]["message"]
    assert client.post("/v1/retrievals", json={**SEARCH, "results": []}).status_code == 409
    # An opinion may change, and change back.
    for polarity, recorded in (("POSITIVE", 1), ("NEGATIVE", 1), ("NEGATIVE", 0), ("POSITIVE", 1)):
        said = {"type": "feedback", "retrieval_id": "s1", "memory_id": "m1", "polarity": polarity}
        assert client.post("/v1/outcomes", json=said).json()["recorded"] == recorded
    found = logged(settings)
    assert [one["id"] for one in found if one["type"] == "retrieval"] == ["s1"]
    assert [one["polarity"] for one in found if one["type"] == "feedback"] == ["POSITIVE", "NEGATIVE", "POSITIVE"]


@pytest.mark.parametrize(
    ("change", "field", "advice"),
    [
        ({"id": 7}, "id", "write it as a string"),
        ({"id": ""}, "id", "give the id"),
        ({"id": "x" * 513}, "id", "use a shorter id"),
        ({"id": "a\0"}, "id", "leave that out"),
        ({"query": "\ud800"}, "query", "well-formed Unicode"),
        ({"scope": {}}, "scope", "name at least one"),
        ({"scope": {"tenant": "t"}}, "scope", "name at least one"),
        ({"scope": {"user": "x" * 2001}}, "scope", "shorter names"),
        ({"time": 1764450000000}, "time", "milliseconds are divided by 1000"),
        ({"results": [{"memory_id": "m1", "text": "t", "score": "high"}]}, "results.0.score", "number"),
        ({"extra": 1}, "extra", "not permitted"),
    ],
    ids=lambda value: None if isinstance(value, dict) else str(value)[:20],
)
def test_what_is_not_valid_says_what_to_do(
    client: TestClient, settings: Settings, change: dict[str, Any], field: str, advice: str
) -> None:
    body = json.dumps([SEARCH, {**SEARCH, "id": "s2", **change}])
    refused = client.post("/v1/retrievals", content=body, headers={"content-type": "application/json"})
    error = refused.json()["error"]
    assert (refused.status_code, error["param"]) == (422, f"1.{field}")
    assert advice in error["message"]
    assert logged(settings) == []


def test_an_outcome_needs_its_search(client: TestClient, settings: Settings) -> None:
    refused = client.post("/v1/outcomes", json={"type": "answer", "retrieval_id": "s9", "text": "The oboe."})
    assert refused.status_code == 404
    assert "Send the search first" in refused.json()["error"]["message"]
    assert logged(settings) == []


def test_a_request_that_the_queue_has_no_room_for_is_turned_away(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, project="p", queue_bytes=8000)
    client = TestClient(create_app(settings), base_url="http://localhost")
    with contextlib.closing(sqlite3.connect(tmp_path / "p" / "log.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        turn = {"scope": ANN, "conversation": "c", "speaker": "Ann", "text": "The oboe."}
        statuses = [client.post("/v1/turns", json=turn).status_code for _ in range(20)]
        other.execute("ROLLBACK")
    taken = statuses.count(200)
    assert set(statuses) == {200, 429}
    # What was taken is written as soon as it can be.
    assert len(logged(settings)) == taken


class _Redact:
    @hookimpl
    def hins_redact(self, event: Event) -> Event | None:
        return None if isinstance(event, Turn) else event


def test_redaction_and_settings_hold_as_in_capture(settings: Settings, tmp_path: Path) -> None:
    hook = _Redact()
    get_plugin_manager().register(hook)
    try:
        client = TestClient(create_app(settings), base_url="http://localhost")
        turn = {"scope": ANN, "conversation": "c", "speaker": "Ann", "text": "Secret."}
        assert client.post("/v1/turns", json=turn).status_code == 200
        assert logged(settings) == []
    finally:
        get_plugin_manager().unregister(hook)
    off = Settings(home=tmp_path, project="off", capture=False)
    answer = TestClient(create_app(off), base_url="http://localhost").post("/v1/retrievals", json=SEARCH)
    assert answer.json() == {"recorded": 0, "known": 0, "ids": ["s1"], "capture": False}
    assert logged(off) == []
