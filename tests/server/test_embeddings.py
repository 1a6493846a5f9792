"""`/v1/embeddings` with the real client of OpenAI, and what it refuses."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from waiting import until

from hins_memory.config import Settings
from hins_memory.encoders.encoder import Encoder
from hins_memory.registry.registry import EncoderVersion, Registry

TEXTS = ["Ann plays the oboe.", "Bob bakes bread.", "Ann plays the oboe.", "cut \ud83d emoji"]


def post(client: Any, **body: Any) -> Any:
    content = json.dumps(body).encode()
    return client.post("/v1/embeddings", content=content, headers={"Content-Type": "application/json"})


def vectors_of(response: Any) -> np.ndarray:
    assert response.status_code == 200, response.text
    assert [one["index"] for one in response.json()["data"]] == list(range(len(response.json()["data"])))
    return np.array([one["embedding"] for one in response.json()["data"]], dtype=np.float32)


def test_the_client_of_openai_gets_the_encoders_vectors(running: Callable[..., str], tiny_version: EncoderVersion):
    import openai

    url = running(keys=("first", "second"))
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="second", max_retries=0)
    expected = Encoder.load(tiny_version.path).encode(TEXTS[:3])
    model = f"hins-{tiny_version.id}"
    assert model in {one.id for one in client.models.list()}
    assert client.models.retrieve(model).id == model
    read = []
    for form in ("float", "base64", None):
        asked = {} if form is None else {"encoding_format": form}
        found = client.embeddings.create(model=model, input=TEXTS[:3], **asked)
        rows = [one.embedding for one in found.data]
        if form == "base64":
            rows = [np.frombuffer(base64.b64decode(one), "<f4") for one in rows]
        read.append(np.array(rows, dtype=np.float32))
        np.testing.assert_allclose(read[-1], expected, atol=1e-6)
    # Digits of JSON lose nothing.
    assert all(np.array_equal(one, read[0]) for one in read)
    assert found.model == model
    assert found.usage.prompt_tokens == found.usage.total_tokens == 21
    # The id may be shortened, and a single text needs no list.
    short = client.embeddings.create(model=model[:-4], input=TEXTS[0])
    assert short.model == model
    with pytest.raises(openai.NotFoundError, match="no model"):
        client.embeddings.create(model="text-embedding-3-small", input="x")
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{url}/v1", api_key="third").embeddings.create(model=model, input="x")


# What is asked beside the model; the field that is wrong, and the code of the error.
REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"input": [1, 2, 3]}, "input", "token_ids_not_supported"),
    ({"input": [[1, 2], [3]]}, "input", "token_ids_not_supported"),
    ({"input": []}, "input", "invalid_request"),
    ({"input": ["a", ""]}, "input[1]", "invalid_request"),
    ({"input": ["a", None]}, "input[1]", "invalid_request"),
    ({"input": {"text": "a"}}, "input", "invalid_request"),
    ({"input": ["a"] * 5}, "input", "invalid_request"),
    ({"input": "a" * 1001}, "input[0]", "input_too_long"),
    ({"input": "a", "dimensions": 16}, "dimensions", "dimensions_not_supported"),
    ({"input": "a", "dimensions": True}, "dimensions", "dimensions_not_supported"),
    ({"input": "a", "encoding_format": "hex"}, "encoding_format", "invalid_request"),
    ({"input": "a", "input_type": "clustering"}, "input_type", "invalid_request"),
    ({"input": "a", "model": ["x"]}, "model", "invalid_request"),
    ({"input": "a", "model": "../../etc/passwd"}, "model", "model_not_found"),
    ({"input": "a", "model": "hins-v0001"}, "model", "model_not_found"),
    ({"input": "a", "model": "hins-current"}, "model", "model_not_pinned"),
]


def test_what_cannot_be_answered_is_refused_in_openais_form(client: Callable[..., Any], tiny_version: EncoderVersion):
    asked = client(max_inputs=4, max_input_chars=1000)
    for body, param, code in REFUSED:
        response = post(asked, **{"model": f"hins-{tiny_version.id}", **body})
        error = response.json()["error"]
        assert response.status_code == (404 if code == "model_not_found" else 400), body
        assert (error["param"], error["code"], error["type"]) == (param, code, "invalid_request_error"), body
        assert error["message"]


def test_hostile_bodies_are_refused(client: Callable[..., Any], tiny_version: EncoderVersion):
    asked = client(max_body_bytes=100_000)
    headers = {"Content-Type": "application/json"}
    for content in (
        b"",
        b"{",
        b"\xff\xfe",
        b"[1]",
        b'{"input": NaN}',
        b"[" * 90_000,
        b'{"input": ' + b"1" * 9000 + b"}",
    ):
        response = asked.post("/v1/embeddings", content=content, headers=headers)
        assert (response.status_code, response.json()["error"]["type"]) == (400, "invalid_request_error"), content[:20]
    assert asked.post("/v1/embeddings", content=b" " * 100_001, headers=headers).status_code == 413
    # Without a length in advance.
    chunks = (b" " * 1000 for _ in range(101))
    assert asked.post("/v1/embeddings", content=chunks, headers=headers).status_code == 413
    # A page of another origin can send plain text to a server without a key, but no JSON; or come by a name of its own.
    assert asked.post("/v1/embeddings", content=b"{}", headers={"Content-Type": "text/plain"}).status_code == 415
    assert asked.post("/v1/embeddings", content=b"{}", headers={"Content-Type": "text/plain; json"}).status_code == 415
    assert asked.post("/v1/embeddings", json={}, headers={"Origin": "http://evil.example"}).status_code == 403
    assert asked.post("/v1/embeddings", json={}, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert asked.get("/v1/models", headers={"Host": "evil.example"}).status_code == 421
    found = post(asked, model=f"hins-{tiny_version.id}", input=TEXTS)
    np.testing.assert_allclose(vectors_of(found), Encoder.load(tiny_version.path).encode(TEXTS), atol=1e-6)


@pytest.mark.slow
def test_an_asymmetric_version_is_not_served_without_a_role(
    client: Callable[..., Any], tower_version: EncoderVersion, tiny_version: EncoderVersion
):
    asked, model = client(), f"hins-{tower_version.id}"
    whole = Encoder.load(tower_version.path)
    refused = post(asked, model=model, input=TEXTS)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "role_required")
    assert "input_type" in refused.json()["error"]["message"]
    for role, names in {
        "query": ["query", "search_query"],
        "document": ["document", "passage", "search_document"],
    }.items():
        expected = whole.encode(TEXTS, role=role)
        for found in (
            *(post(asked, model=model, input=TEXTS, input_type=name) for name in names),
            post(asked, model=f"{model}:{role}", input=TEXTS),
            asked.post(f"/tei/{model}:{role}/embed", json={"inputs": TEXTS[:3]}),
        ):
            rows = found.json() if isinstance(found.json(), list) else vectors_of(found)
            np.testing.assert_allclose(rows, expected[: len(rows)], atol=1e-6)
    assert post(asked, model=f"{model}:query", input="x", input_type="document").status_code == 400
    # One of one side has the same vectors for both.
    same = [vectors_of(post(asked, model=f"hins-{tiny_version.id}{end}", input="x")) for end in ("", ":query")]
    np.testing.assert_array_equal(*same)


def test_vectors_are_cut_where_the_model_was_trained_for_it(
    client: Callable[..., Any], tiny_folder: Path, tmp_path: Path, settings: Settings
):
    import shutil

    shutil.copytree(tiny_folder, tmp_path / "nested")
    config = tmp_path / "nested" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "matryoshka_dimensions": [8, 16]}))
    version = Registry(settings).add(tmp_path / "nested", {"base": "tiny"})
    asked, model = client(), f"hins-{version.id}"
    whole = vectors_of(post(asked, model=model, input=TEXTS))
    cut = vectors_of(post(asked, model=model, input=TEXTS, dimensions=16))
    expected = whole[:, :16] / np.linalg.norm(whole[:, :16], axis=1, keepdims=True)
    np.testing.assert_allclose(cut, expected, atol=1e-6)
    assert post(asked, model=model, input="x", dimensions=12).json()["error"]["param"] == "dimensions"


@pytest.mark.slow
def test_current_queries_improve_over_documents_that_stay(
    client: Callable[..., Any], tower_version: EncoderVersion, tiny_version: EncoderVersion, settings: Settings
):
    asked, registry = client(), Registry(settings)
    pinned = f"hins-current@{tiny_version.id}"
    tiny, tower = Encoder.load(tiny_version.path), Encoder.load(tower_version.path)
    registry.promote(tiny_version.id)
    for version, encoder in ((tiny_version, tiny), (tower_version, tower)):
        registry.promote(version.id)
        until(lambda id=version.id: post(asked, model=f"{pinned}:query", input="x").json()["model"] == f"hins-{id}")
        found = post(asked, model=f"{pinned}:query", input=TEXTS)
        assert found.json()["model"] == f"hins-{version.id}"
        np.testing.assert_allclose(vectors_of(found), encoder.encode(TEXTS, role="query"), atol=1e-6)
        found = post(asked, model=pinned, input=TEXTS, input_type="document")
        np.testing.assert_allclose(vectors_of(found), tiny.encode(TEXTS), atol=1e-6)
    assert post(asked, model=pinned, input="x").json()["error"]["code"] == "role_required"
    # Of a store that hins swaps, the live index says what embeds queries; documents go through its adapter.
    registry.record_live("store of Ann", tower_version.id, "_tower")
    headers, body = {"X-Hins-Store": "store of Ann"}, {"model": "hins-current:query", "input": "x"}
    until(lambda: "X-Hins-Index" in asked.post("/v1/embeddings", json=body, headers=headers).headers)
    found = asked.post("/v1/embeddings", json=body, headers=headers)
    assert (found.headers["X-Hins-Version"], found.headers["X-Hins-Index"]) == (tower_version.id, "_tower")
    found = asked.post("/v1/embeddings", json={"model": "hins-current:document", "input": "x"}, headers=headers)
    assert found.json()["error"]["code"] == "role_required"


@pytest.mark.slow
def test_the_tower_of_a_scope_serves_its_queries_alone(
    client: Callable[..., Any], tiny_version: EncoderVersion, settings: Settings, tmp_path: Path
):
    from towers import write_tower

    write_tower(tiny_version.path, tmp_path / "own", shift=0.5)
    registry = Registry(settings)
    about = {"mode": "tower", "base": tiny_version.id, "document_space": tiny_version.id, "scope": "user=ann"}
    tower = registry.add(tmp_path / "own", about)
    registry.promote(tiny_version.id)
    registry.serve_scope(tower.id)
    asked, whole = client(), Encoder.load(tower.path)
    for scope, expected in (("user=ann&agent=bot", tower.id), ("user=bob", tiny_version.id)):
        found = asked.post(
            "/v1/embeddings",
            json={"model": f"hins-current@{tiny_version.id}:query", "input": TEXTS[:2]},
            headers={"X-Hins-Scope": scope},
        )
        assert found.headers["X-Hins-Version"] == expected
        if expected == tower.id:
            np.testing.assert_allclose(vectors_of(found), whole.encode(TEXTS[:2], role="query"), atol=1e-5)
