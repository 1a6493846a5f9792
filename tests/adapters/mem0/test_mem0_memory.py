"""`Memory` and `AsyncMemory` behave as Mem0's own, work without a key or a network, and open the right store."""

from __future__ import annotations

import asyncio
import subprocess
import threading
from pathlib import Path
from typing import Any

import mem0
import pytest
from child_process import run_python
from hins_adapter_mem0 import AsyncMemory, Memory
from llm_server import LLMServer
from mem0.configs.base import MemoryConfig
from mem0.exceptions import LLMError
from mem0_world import ANN, FACTS, fill, logged, own_memory, plain, texts

from hins_memory.config import Settings
from hins_memory.errors import AgentError, ConfigError
from hins_memory.registry.registry import EncoderVersion, Registry


def _play(memory: Any) -> list[Any]:
    """Use every method once and return all that came back."""
    seen: list[Any] = [memory.add(fact, user_id="ann", infer=False, metadata={"n": 1}) for fact in FACTS]
    messages = [{"role": "user", "name": "Ann", "content": "Hi"}, {"role": "system", "content": "x"}, {"role": "user"}]
    seen.append(memory.add(messages, user_id="ann", run_id="r1", infer=False))
    seen.append(memory.search("Which instrument does Ann play?", filters=ANN, top_k=3))
    seen.append(memory.search("cat", filters={"user_id": "ann", "n": {"eq": 1}}, threshold=0.2, explain=True))
    first = seen[0]["results"][0]["id"]
    seen += [memory.update(first, "Ann plays the viola."), memory.get(first), memory.history(first)]
    second = seen[1]["results"][0]["id"]
    seen += [memory.delete(second), memory.get(second), memory.history(second)]
    seen.append(sorted(plain(memory.get_all(filters=ANN, top_k=50)["results"]), key=str))
    seen += [memory.delete_all(run_id="r1"), len(memory.get_all(filters=ANN)["results"])]
    seen += [memory.reset(), memory.get_all(filters=ANN), memory.history(first)]
    seen.append(texts(memory.add("again", user_id="ann", infer=False)))
    return plain(seen)


@pytest.mark.slow
def test_memory_behaves_as_mem0s_own(settings: Settings, tmp_path: Path) -> None:
    ours, peer = Memory(settings=settings), own_memory(tmp_path / "peer")
    assert _play(ours) == _play(peer)


@pytest.mark.slow
def test_async_memory_behaves_as_the_sync_one(settings: Settings) -> None:
    class Blocking:
        """Calls a coroutine's methods one after the other in one loop."""

        def __init__(self, memory: Any, loop: asyncio.AbstractEventLoop) -> None:
            self.memory, self.loop = memory, loop

        def __getattr__(self, name: str) -> Any:
            return lambda *args, **kwargs: self.loop.run_until_complete(getattr(self.memory, name)(*args, **kwargs))

    loop = asyncio.new_event_loop()
    other = Settings(home=settings.home, project="async")
    assert _play(Blocking(AsyncMemory(settings=other), loop)) == _play(Memory(settings=settings))
    loop.close()


def test_bad_calls_raise_what_mem0_raises(settings: Settings, tmp_path: Path) -> None:
    ours, peer = Memory(settings=settings), own_memory(tmp_path / "peer")
    calls: list[Any] = [
        lambda m: m.add(None, user_id="ann", infer=False),
        lambda m: m.add("x", infer=False),
        lambda m: m.add("x", user_id=" ", infer=False),
        lambda m: m.add([None], user_id="ann", infer=False),
        lambda m: m.search("", filters=ANN),
        lambda m: m.search("x"),
        lambda m: m.search("x", user_id="ann"),
        lambda m: m.update("0b9d0be3-8ba0-4f2c-b6a8-3d6ad3d10bd2", "x"),
        lambda m: m.delete("0b9d0be3-8ba0-4f2c-b6a8-3d6ad3d10bd2"),
        lambda m: m.delete_all(),
    ]
    for call in calls:
        with pytest.raises(Exception) as ours_raised:  # noqa: PT011 - compared with Mem0's own below
            call(ours)
        with pytest.raises(Exception) as own_raised:  # noqa: PT011
            call(peer)
        assert type(ours_raised.value) is type(own_raised.value)
        assert str(ours_raised.value) == str(own_raised.value)


@pytest.mark.slow
def test_is_a_mem0_memory_under_the_projects_own_folder(settings: Settings) -> None:
    memory = Memory(settings=settings)
    assert isinstance(memory, mem0.Memory)
    assert isinstance(AsyncMemory(settings=settings), mem0.AsyncMemory)
    fill(memory)
    assert (settings.agent_folder("mem0") / "qdrant" / "meta.json").is_file()
    assert (settings.agent_folder("mem0") / "history.db").is_file()
    assert memory.config.vector_store.config.embedding_model_dims == 384
    assert memory.collection_name == "mem0"


def test_without_a_key_only_the_llm_is_missing(settings: Settings) -> None:
    memory = Memory(settings=settings)
    with pytest.raises(LLMError, match="infer=False"):
        memory.add("I play the cello", user_id="ann")


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Memory, AsyncMemory])
def test_an_llm_of_the_users_extracts_memories(kind: Any, settings: Settings) -> None:
    reply = {"memory": [{"id": "0", "text": "Ann plays the cello", "attributed_to": "user"}]}
    with LLMServer({"I play the cello": reply}) as server:
        memory = kind({"llm": server.mem0_config()}, settings=settings)
        messages = [
            {"role": "user", "name": "Ann", "content": "I play the cello"},
            {"role": "assistant", "content": "!"},
        ]
        found = memory.add(messages, user_id="ann")
        found = asyncio.run(found) if kind is AsyncMemory else found
        assert texts(found) == ["Ann plays the cello"]
        assert len(server.requests) == 1
        memory.close()
    (log,) = logged(settings)
    assert [(turn.speaker, turn.text) for turn in log.turns] == [("Ann", "I play the cello"), ("assistant", "!")]
    (stored,) = log.memories
    assert (stored.text, stored.speaker) == ("Ann plays the cello", "Ann")
    assert stored.turn_ids == tuple(turn.id for turn in log.turns)


def test_an_llm_error_is_mem0s(settings: Settings) -> None:
    with LLMServer(status=400) as server:
        memory = Memory({"llm": server.mem0_config()}, settings=settings)
        with pytest.raises(LLMError, match="told to fail"):
            memory.add("x", user_id="ann")


def test_config_may_be_mem0s_own_object(settings: Settings, tmp_path: Path) -> None:
    store = {"collection_name": "notes", "path": str(tmp_path / "elsewhere")}
    config = MemoryConfig(vector_store={"provider": "qdrant", "config": store}, custom_instructions="Be brief.")
    memory = Memory(config, settings=settings)
    fill(memory)
    assert memory.custom_instructions == "Be brief."
    assert memory.vector_store.collection_name == "notes"
    assert (tmp_path / "elsewhere" / "collection" / "notes").is_dir()
    # The user's own object is left alone.
    assert config.vector_store.config.embedding_model_dims == 1536
    assert config.embedder.provider == "openai"


@pytest.mark.parametrize("kind", [Memory, AsyncMemory])
def test_from_config_with_the_provider_hins(kind: Any, tmp_path: Path, tiny_folder: Path) -> None:
    options = {"model": str(tiny_folder), "project": "cfg", "home": str(tmp_path / "home"), "capture": False}
    store = {"provider": "qdrant", "config": {"collection_name": "c1"}}
    memory = kind.from_config({"embedder": {"provider": "hins", "config": options}, "vector_store": store})
    assert memory.vector_store.collection_name == "c1"
    assert memory.vector_store.embedding_model_dims == 32
    assert (tmp_path / "home" / "cfg" / "mem0" / "qdrant").is_dir()


def test_from_config_refuses_unknown_settings() -> None:
    with pytest.raises(ConfigError, match="modle"):
        Memory.from_config({"embedder": {"provider": "hins", "config": {"modle": "x"}}})


def test_from_config_with_another_provider_only_captures(settings: Settings, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("HINS_HOME", str(tmp_path / "home"))
    with LLMServer() as server:
        options = {"api_key": "k", "openai_base_url": server.base_url, "embedding_dims": 8}
        store = {"provider": "qdrant", "config": {"path": str(tmp_path / "q"), "embedding_model_dims": 8}}
        config = {"embedder": {"provider": "openai", "config": options}, "vector_store": store}
        memory = Memory.from_config({**config, "llm": server.mem0_config()})
        assert type(memory.embedding_model).__name__ == "OpenAIEmbedding"


def test_a_wrong_embedder_is_a_clear_error(settings: Settings) -> None:
    with pytest.raises(ConfigError, match="openai"):
        Memory(embedder="openai", settings=settings)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="Mem0 does not accept"):
        Memory({"vector_store": {"provider": "nowhere"}}, settings=settings)


@pytest.mark.slow
def test_projects_and_several_memories_of_one_process(settings: Settings) -> None:
    one, other = Memory(settings=settings), Memory(project="other", settings=settings)
    again, asynchronous = Memory(settings=settings), AsyncMemory(settings=settings)
    ids = fill(one)
    assert other.get_all(filters=ANN)["results"] == []
    assert again.get(ids[0])["memory"] == FACTS[0]
    assert asyncio.run(asynchronous.get(ids[1]))["memory"] == FACTS[1]
    # The folder stays open until its last user leaves; then anyone may open it.
    one.close()
    assert again.get(ids[2])["memory"] == FACTS[2]
    again.close()
    asynchronous.close()
    assert Memory(settings=settings).get(ids[3])["memory"] == FACTS[3]


@pytest.mark.slow
def test_a_store_that_another_process_holds(settings: Settings) -> None:
    memory = Memory(settings=settings)
    code = (
        "from hins_adapter_mem0 import Memory; from hins_memory.config import Settings\n"
        f"Memory(settings=Settings(home={str(settings.home)!r}, project='test'))"
    )
    other = run_python(code)
    assert other.returncode != 0
    assert "AgentError: The embedded Qdrant in" in other.stderr
    assert "Qdrant server" in other.stderr
    memory.close()


@pytest.mark.slow
def test_telemetry_in_its_default_state_does_not_stop_two_projects(tmp_path: Path, python_without_mem0: str) -> None:
    code = (
        "import os; os.environ.pop('MEM0_TELEMETRY', None)\n"
        "from hins_adapter_mem0 import AsyncMemory, Memory; from hins_memory.config import Settings\n"
        "from mem0.memory.telemetry import MEM0_TELEMETRY; assert MEM0_TELEMETRY\n"
        f"s = [Settings(home={str(tmp_path)!r}, project=name) for name in ('one', 'two', 'three')]\n"
        "m = [Memory(settings=s[0]), Memory(settings=s[1]), AsyncMemory(settings=s[2])]\n"
        "m[0].add('x', user_id='ann', infer=False)\n"
        "print(len(m[0].get_all(filters={'user_id': 'ann'})['results']), flush=True); os._exit(0)"
    )
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [python_without_mem0, "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert run.stdout.strip() == "1", run.stderr[-2000:]


@pytest.mark.slow
def test_stock_and_hins_start_where_they_should(settings: Settings, tiny_version: EncoderVersion) -> None:
    Registry(settings).promote(tiny_version.id)
    stock = Memory(embedder="stock", project="plain", settings=settings)
    assert stock.embedding_model.encoder.version.startswith("all-MiniLM-L6-v2@")
    hins = Memory(settings=settings)
    assert hins.embedding_model.encoder.version == tiny_version.id
    assert hins.vector_store.embedding_model_dims == 32
    hins.close()
    with pytest.raises(AgentError, match=tiny_version.id):
        Memory(embedder="stock", settings=settings)


def test_the_recorded_encoder_wins_over_what_a_new_store_would_get(
    settings: Settings, tiny_version: EncoderVersion, tiny_folder: Path
) -> None:
    memory = Memory(settings=settings)
    ids = fill(memory)
    before = memory.embedding_model.encoder.version
    memory.close()
    Registry(settings).promote(tiny_version.id)
    for options in ({}, {"model": tiny_folder}):
        again = Memory(settings=settings, **options)  # type: ignore[arg-type]
        assert again.embedding_model.encoder.version == before
        assert again.search("cello", filters=ANN)["results"][0]["id"] == ids[0]
        again.close()


def test_memories_of_another_encoder_are_never_mixed_in(settings: Settings, tmp_path: Path) -> None:
    peer = own_memory(tmp_path / "own")
    fill(peer)
    peer.vector_store.client.close()
    config = {"vector_store": {"provider": "qdrant", "config": {"path": str(tmp_path / "own" / "qdrant")}}}
    with pytest.raises(AgentError, match=f"holds {len(FACTS)} memories that another encoder embedded"):
        Memory(config, settings=settings)
    # The failed opening holds nothing: the folder can be opened again.
    again = own_memory(tmp_path / "own")
    assert len(again.get_all(filters=ANN)["results"]) == len(FACTS)


def test_an_empty_collection_of_another_dimension_is_left_alone(settings: Settings, tmp_path: Path) -> None:
    from qdrant_client import QdrantClient
    from qdrant_client.models import Distance, VectorParams

    client = QdrantClient(path=str(tmp_path / "q"))
    client.create_collection("mem0", VectorParams(size=1536, distance=Distance.COSINE))
    client.close()
    config = {"vector_store": {"provider": "qdrant", "config": {"path": str(tmp_path / "q")}}}
    for _ in range(2):
        memory = Memory(config, settings=settings)
        fill(memory, facts=FACTS[:1])
        assert texts(memory.search("cello", filters=ANN))[0] == FACTS[0]
        assert memory.vector_store.client.get_collection("mem0").config.params.vectors.size == 1536
        memory.close()


def test_another_store_than_qdrant(settings: Settings, tmp_path: Path) -> None:
    config = {"vector_store": {"provider": "faiss", "config": {"path": str(tmp_path / "f"), "collection_name": "c"}}}
    memory = Memory(config, settings=settings)
    fill(memory)
    assert memory.vector_store.embedding_model_dims == 384
    assert texts(memory.search("Which instrument does Ann play?", filters=ANN))[0] == FACTS[0]
    memory.close()
    assert len(Memory(config, settings=settings).get_all(filters=ANN)["results"]) == len(FACTS)


@pytest.mark.slow
def test_threads_may_use_one_memory(settings: Settings) -> None:
    memory = Memory(settings=settings)
    failures: list[BaseException] = []

    def work(user: str) -> None:
        try:
            for fact in FACTS:
                memory.add(fact, user_id=user, infer=False)
                assert texts(memory.search(fact, filters={"user_id": user}))[0] == fact
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(f"u{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    memory.close()
    assert sum(len(log.retrievals) for log in logged(settings)) == 4 * len(FACTS)


def test_a_very_long_memory(settings: Settings) -> None:
    memory = Memory(settings=settings)
    text = "Ann wrote about the fjord. " * 4000
    (item,) = memory.add(text, user_id="ann", infer=False)["results"]
    assert memory.get(item["id"])["memory"] == text
