"""Real frameworks that are told a URL and the id of a model, and nothing else, get the vectors of that version."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess

import numpy as np
import pytest

from hins_memory.encoders.encoder import Encoder

TEXTS = ["Ann gave up the cello and plays the oboe now.", "Bo rows on Sundays."]
QUESTION = "Which instrument does Ann play?"
#: The server has no key set, so that any will do; OpenAI's clients want one.
KEY = "none"
#: Embeds, stores and searches as cognee's pipelines do, by what the environment variables say.
COGNEE = """
import asyncio, json, os, sys
import litellm
# Counts tokens when the model's tokenizer is not on the hub; litellm brings it.
os.environ["TIKTOKEN_CACHE_DIR"] = os.path.join(os.path.dirname(litellm.__file__), "litellm_core_utils", "tokenizers")
from cognee.infrastructure.databases.vector import get_vector_engine_async
from cognee.infrastructure.engine import DataPoint

class Note(DataPoint):
    text: str
    metadata: dict = {"index_fields": ["text"]}

async def main(texts):
    store = await get_vector_engine_async()
    vectors = list(await store.embedding_engine.embed_text(texts))
    await store.create_collection("Note_text", Note)
    await store.create_data_points("Note_text", [Note(text=text) for text in texts])
    found = await store.search("Note_text", query_text=texts[-1], limit=1, include_payload=True)
    print(json.dumps({"vectors": vectors, "text": found[0].payload["text"], "distance": found[0].score}))

asyncio.run(main(json.loads(sys.argv[1])))
"""


@pytest.fixture
def endpoint(running) -> tuple[str, str]:
    """The URL and the model's id, as `GET /v1/models` lists it first."""
    import httpx

    url = f"{running()}/v1"
    return url, httpx.get(f"{url}/models").json()["data"][0]["id"]


@pytest.fixture
def expected(tiny_folder):
    encoder = Encoder.load(tiny_folder)
    return encoder.encode(TEXTS), encoder.encode([QUESTION], role="query")


def assert_same(documents, query, expected):
    np.testing.assert_allclose(np.array(documents), expected[0], atol=1e-5)
    np.testing.assert_allclose(np.array([query]), expected[1], atol=1e-5)


def test_mem0_by_its_openai_provider(endpoint, tmp_path, tiny_folder):
    mem0 = pytest.importorskip("mem0")
    url, model = endpoint
    config = {
        "embedder": {"provider": "openai", "config": {"model": model, "openai_base_url": url, "api_key": KEY}},
        "vector_store": {
            "provider": "qdrant",
            "config": {"path": str(tmp_path / "qdrant"), "embedding_model_dims": 32, "on_disk": True},
        },
        "llm": {"provider": "openai", "config": {"api_key": KEY}},
        "history_db_path": str(tmp_path / "history.db"),
    }
    memory = mem0.Memory.from_config(config)
    memory.add([{"role": "user", "content": text} for text in TEXTS], user_id="ann", infer=False)
    found = memory.search(TEXTS[1], filters={"user_id": "ann"})["results"]
    assert found[0]["memory"] == TEXTS[1]
    stored = memory.vector_store.list(top_k=10)[0]
    records = memory.vector_store.client.retrieve("mem0", [one.id for one in stored], with_vectors=True)
    vectors = {one.payload["data"]: one.vector for one in records}
    own = Encoder.load(tiny_folder).encode(TEXTS)
    np.testing.assert_allclose([vectors[text] for text in TEXTS], own, atol=1e-5)


def test_langchain(endpoint, expected):
    openai = pytest.importorskip("langchain_openai")
    url, model = endpoint
    # Without the last setting it sends the ids of OpenAI's own tokens.
    embedder = openai.OpenAIEmbeddings(base_url=url, model=model, api_key=KEY, check_embedding_ctx_length=False)
    assert_same(embedder.embed_documents(TEXTS), embedder.embed_query(QUESTION), expected)


def test_llamaindex(endpoint, expected):
    like = pytest.importorskip("llama_index.embeddings.openai_like")
    url, model = endpoint
    embedder = like.OpenAILikeEmbedding(model_name=model, api_base=url, api_key=KEY)
    assert_same(embedder.get_text_embedding_batch(TEXTS), embedder.get_query_embedding(QUESTION), expected)


@pytest.mark.slow
def test_graphiti(endpoint, expected):
    graphiti = pytest.importorskip("graphiti_core.embedder.openai")
    url, model = endpoint

    async def embed():
        config = graphiti.OpenAIEmbedderConfig(base_url=url, embedding_model=model, api_key=KEY)
        embedder = graphiti.OpenAIEmbedder(config)
        return await embedder.create_batch(TEXTS), await embedder.create(QUESTION)

    assert_same(*asyncio.run(embed()), expected)


@pytest.mark.slow
def test_haystack_tells_queries_from_documents(endpoint, expected):
    embedders = pytest.importorskip("haystack.components.embedders")
    from haystack import Document
    from haystack.utils import Secret

    url, model = endpoint
    common = {"api_base_url": url, "api_key": Secret.from_token(KEY)}
    found = embedders.OpenAIDocumentEmbedder(model=f"{model}:document", progress_bar=False, **common).run(
        documents=[Document(content=text) for text in TEXTS]
    )
    query = embedders.OpenAITextEmbedder(model=f"{model}:query", **common).run(text=QUESTION)
    assert_same([one.embedding for one in found["documents"]], query["embedding"], expected)


@pytest.mark.slow
def test_cognee_in_an_environment_of_its_own(endpoint, expected, tmp_path):
    python = os.environ.get("HINS_TEST_COGNEE")
    if not python:
        pytest.skip("HINS_TEST_COGNEE names the Python of an environment with cognee")
    url, model = endpoint
    script = tmp_path / "script.py"
    script.write_text(COGNEE, encoding="utf-8")
    said = {
        "EMBEDDING_PROVIDER": "openai_compatible",
        "EMBEDDING_ENDPOINT": url,
        "EMBEDDING_MODEL": model,
        "EMBEDDING_DIMENSIONS": "32",
        "EMBEDDING_API_KEY": KEY,
        "EMBEDDING_INPUT_TYPE": "document",
    }
    folders = {name: str(tmp_path / "cognee") for name in ("SYSTEM_ROOT_DIRECTORY", "DATA_ROOT_DIRECTORY", "HOME")}
    quiet = {"HF_HUB_OFFLINE": "1", "TELEMETRY_DISABLED": "1", "LOG_LEVEL": "ERROR", "COGNEE_LOGS_DIR": str(tmp_path)}
    alone = {"VECTOR_DB_SUBPROCESS_ENABLED": "false", "ENABLE_BACKEND_ACCESS_CONTROL": "false"}
    alone["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    environment = {"PATH": os.environ["PATH"], **said, **folders, **quiet, **alone}
    command = [python, str(script), json.dumps(TEXTS)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    np.testing.assert_allclose(np.array(found["vectors"]), expected[0], atol=1e-5)
    assert found["text"] == TEXTS[-1]
    assert found["distance"] < 1e-5
