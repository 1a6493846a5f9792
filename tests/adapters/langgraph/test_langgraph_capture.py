"""What is done with a LangGraph store is recorded, completely, in order, and apart by owner."""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path
from typing import Any, TypedDict

import pytest
from hins_adapter_langgraph import HinsEmbeddings, HinsStore
from langgraph.config import get_store
from langgraph.graph import END, START, StateGraph
from langgraph.store.base import BaseStore, PutOp, SearchOp, ensure_embeddings
from langgraph.store.memory import InMemoryStore
from langgraph.store.postgres import AsyncPostgresStore
from towers import write_tower

import hins_memory
from hins_memory.config import Settings
from hins_memory.encoders.encoder import Encoder
from hins_memory.errors import AgentError, ConfigError, SwapError
from hins_memory.loop.pipeline import Pipeline
from hins_memory.registry.registry import Registry

ANN = ("memories", "ann")


class State(TypedDict):
    """The state of the graph below."""

    said: str
    found: str


def graph(store: HinsStore) -> Any:
    """A graph of two nodes: one stores what is said, the other searches for it."""

    def remember(state: State) -> dict[str, str]:
        get_store().put(ANN, state["said"][:8], {"text": state["said"]})
        return {}

    def answer(state: State, *, store: BaseStore) -> dict[str, str]:
        return {"found": store.search(ANN, query="Which instrument?", limit=1)[0].value["text"]}

    builder = StateGraph(State)
    builder.add_node("remember", remember)
    builder.add_node("answer", answer)
    builder.add_edge(START, "remember")
    builder.add_edge("remember", "answer")
    builder.add_edge("answer", END)
    return builder.compile(store=store)


def test_a_graph_is_recorded_with_its_answer_and_thread(store: HinsStore, logs: Any) -> None:
    with store.turn() as turn:
        state = graph(store).invoke({"said": "Ann plays the cello."}, {"configurable": {"thread_id": "t1"}})
        turn.answered(state["found"])
    log = logs()["user=ann"]
    (memory,), (retrieval,), (answer,) = log.memories, log.retrievals, log.answers
    assert (memory.id, memory.text, memory.conversation) == ("memories/ann/Ann play", "Ann plays the cello.", "t1")
    assert retrieval.query == "Which instrument?"
    assert [(one.memory_id, one.text) for one in retrieval.results] == [(memory.id, memory.text)]
    assert (answer.retrieval_id, answer.text) == (retrieval.id, "Ann plays the cello.")


def test_async_operations_are_recorded(store: HinsStore, logs: Any) -> None:
    async def use() -> None:
        await graph(store).ainvoke({"said": "Ann plays the cello."})
        await store.aput(ANN, "b", {"text": "Ann likes tea."})
        await store.adelete(ANN, "b")

    asyncio.run(use())
    log = logs()["user=ann"]
    assert [memory.text for memory in log.memories] == ["Ann plays the cello."]
    assert (len(log.retrievals), log.deleted) == (1, 1)


def test_a_batch_is_recorded_in_order_with_updates_and_deletions(store: HinsStore, logs: Any) -> None:
    store.batch([PutOp(ANN, str(n), {"text": f"fact {n}"}) for n in range(5)])
    store.put(ANN, "1", {"text": "another fact"})
    store.delete(ANN, "2")
    store.put(ANN, "3", {"text": "not to be found"}, index=False)
    store.batch([SearchOp(("memories", "ann"), query="fact"), SearchOp(("memories", "ann"))])
    log = logs()["user=ann"]
    assert {memory.id[-1]: memory.text for memory in log.memories} == {
        "0": "fact 0",
        "1": "another fact",
        "4": "fact 4",
    }
    assert len(log.retrievals) == 1, "a listing without a query is no retrieval"


def test_feedback_names_an_item_by_its_id(store: HinsStore, logs: Any) -> None:
    store.put(ANN, "a/b", {"text": "Ann plays the cello."})
    with store.turn() as turn:
        store.search(ANN, query="cello")
    store.feedback(store.memory_id(ANN, "a/b"), "POSITIVE", turn.retrieval_ids[0])
    (feedback,) = logs()["user=ann"].feedback
    assert feedback.memory_id == "memories/ann/a%2Fb"


@pytest.mark.parametrize("label", ["ann/bob", "ann\n"])
def test_owners_stay_apart_whatever_their_ids(label: str, store: HinsStore, logs: Any) -> None:
    store.put(("memories", label), "k", {"text": "mine"})
    store.put(("memories", "other", label), "k", {"text": "not mine"})
    store.search(("memories", label), query="mine")
    found = LogsByUser(logs())
    assert [memory.text for memory in found[label].memories] == ["mine"]
    assert [one.text for one in found[label].retrievals[0].results] == ["mine"]
    assert [memory.text for memory in found["other"].memories] == ["not mine"]


class LogsByUser:
    """Logs by the name of their user."""

    def __init__(self, logs: dict[str, Any]) -> None:
        self.logs = {log.memories[0].scope.user: log for log in logs.values()}

    def __getitem__(self, user: str) -> Any:
        return self.logs[user]


def test_what_names_nobody_is_not_recorded(store: HinsStore, logs: Any) -> None:
    store.put(("memories",), "k", {"text": "everybody's"})
    store.put(("docs", "ann"), "k", {"text": "no memory"})
    store.put(ANN, "k", {"text": "Ann's"})
    assert len(store.search(("memories",), query="whose?")) == 2, "the store works as ever"
    found = logs()
    assert list(found) == ["user=ann"]
    assert len(found["user=ann"].memories) == 1
    assert not found["user=ann"].retrievals, "a search in what several own has no one owner"


def test_by_default_every_namespace_is_an_owner_of_its_own(index: dict[str, Any], settings: Any, logs: Any) -> None:
    store = HinsStore(InMemoryStore(index=index), settings=settings)
    store.put(("ann", "memories"), "k", {"text": "one"})
    store.put(("ann", "memories", "deep"), "k", {"text": "two"})
    store.put(("ann",), "k", {"text": "three"})
    store.search(("ann", "memories"), query="one")
    found = LogsByUser(logs())
    assert set(found.logs) == {"ann/memories", "ann/memories/deep"}
    assert [one.text for one in found["ann/memories"].retrievals[0].results] == ["one"]
    store.close()


@pytest.mark.parametrize("pattern", [("memories",), ("{tenant}",), ("{user}", "{user}"), ("{person}",), ()])
def test_a_pattern_that_names_nobody_is_refused(pattern: Any, index: dict[str, Any], settings: Any) -> None:
    with pytest.raises(ConfigError, match="names no owner"):
        HinsStore(InMemoryStore(index=index), namespace=pattern, settings=settings)


@pytest.mark.parametrize("fault", ["owner", "key", "value"])
def test_nothing_is_raised_into_the_agent(fault: str, index: dict[str, Any], settings: Any) -> None:
    def owner(namespace: tuple[str, ...]) -> Any:
        raise RuntimeError("a fault of the function")

    store = HinsStore(InMemoryStore(index=index), namespace=owner if fault == "owner" else None, settings=settings)
    key: Any = 7 if fault == "key" else "\ud800" if fault == "value" else "k"
    store.batch([PutOp(ANN, key, {"text": "Ann plays the cello."})])
    assert store.search(ANN, query="cello")[0].value == {"text": "Ann plays the cello."}
    store.close()


def test_errors_of_the_store_reach_the_agent_and_record_nothing(store: HinsStore, logs: Any) -> None:
    store.put(ANN, "k", {"text": "kept"})
    with pytest.raises(ValueError, match="Unknown operation"):
        store.batch([PutOp(ANN, "l", {"text": "lost"}), "nonsense"])
    assert [memory.text for memory in logs()["user=ann"].memories] == ["kept"]


def test_attach_wraps_and_detach_gives_back_the_same_store(index: dict[str, Any], settings: Any, logs: Any) -> None:
    inner = InMemoryStore(index=index)
    before = {name: getattr(inner, name) for name in ("_data", "_vectors", "index_config", "embeddings")}
    store = hins_memory.attach(inner, settings=settings)
    assert isinstance(store, HinsStore)
    assert isinstance(store, BaseStore)
    store.put(("memories", "ann"), "k", {"text": "recorded"})
    assert hins_memory.detach(store) is inner
    assert type(inner) is InMemoryStore
    assert all(getattr(inner, name) is value for name, value in before.items())
    inner.put(("memories", "ann"), "l", {"text": "not recorded"})
    store.put(("memories", "ann"), "m", {"text": "not recorded"})
    assert [memory.text for log in logs().values() for memory in log.memories] == ["recorded"]
    with pytest.raises(AgentError, match="not attached"):
        hins_memory.detach(inner)


def _check_recorded_async(opened: Any, settings: Any, logs: Any) -> None:
    async def use() -> None:
        async with opened as inner:
            store = HinsStore(inner, namespace=("memories", "{user}"), settings=settings)
            await store.setup()
            await store.aput(ANN, "k", {"text": "Ann plays the cello."})
            assert await store.asearch(ANN, query="cello")
            store.close()

    asyncio.run(use())
    log = logs()["user=ann"]
    assert (len(log.memories), len(log.retrievals)) == (1, 1)


@pytest.mark.slow
def test_an_async_postgres_store_is_recorded(
    index: dict[str, Any], settings: Any, logs: Any, postgresql_url: str
) -> None:
    _check_recorded_async(AsyncPostgresStore.from_conn_string(postgresql_url, index=index), settings, logs)


def test_embeddings_keep_the_two_roles(query_version: Any) -> None:
    embeddings = HinsEmbeddings(query_version.path)
    assert ensure_embeddings(embeddings) is embeddings
    assert embeddings.dims == 32
    assert embeddings.embed_query("cello") != embeddings.embed_documents(["cello"])[0]
    assert asyncio.run(embeddings.aembed_query("cello")) == embeddings.embed_query("cello")


@pytest.mark.slow
def test_embeddings_are_made_by_name_folder_or_encoder(shallow_stock: Any) -> None:
    encoder = Encoder.load(shallow_stock)
    expected = encoder.encode(["cello"], role="query")[0].tolist()
    for given in ("stock", str(shallow_stock), shallow_stock, encoder):
        assert HinsEmbeddings(given).embed_query("cello") == pytest.approx(expected, abs=1e-6)


class Elsewhere(BaseStore):
    """A store of another package, over a real one."""

    def __init__(self, inner: InMemoryStore) -> None:
        self.inner, self.index_config, self.embeddings = inner, inner.index_config, inner.embeddings

    def batch(self, ops: Any) -> Any:
        return self.inner.batch(ops)

    async def abatch(self, ops: Any) -> Any:
        return await self.inner.abatch(ops)


@pytest.mark.slow
def test_a_store_of_another_package_gets_a_tower_and_no_other_vectors(
    settings: Settings,
    index: dict[str, Any],
    tiny_version: Any,
    query_version: Any,
    shallow_folder: Path,
    tmp_path: Path,
) -> None:
    inner = InMemoryStore(index={**index, "embed": HinsEmbeddings(tiny_version.path)})
    store = hins_memory.attach(Elsewhere(inner), settings=settings)
    store.put(ANN, "a", {"text": "Ann plays the cello."})
    shutil.copytree(shallow_folder, tmp_path / "other")
    other = Registry(settings).add(tmp_path / "other", {"base": "stock"})
    with pytest.raises(SwapError, match=r"cannot be re-embedded.*mode tower"):
        Pipeline(settings, store).swap(other.id, force=True)
    vectors = {key: dict(found) for key, found in inner._vectors[ANN].items()}
    Pipeline(settings, store).swap(query_version.id, force=True)
    assert store.search(ANN, query="Ann plays the cello.")[0].score < 0.999
    assert {key: dict(found) for key, found in inner._vectors[ANN].items()} == vectors
    store.close()


def test_a_store_without_an_index_says_what_it_lacks(settings: Settings) -> None:
    with pytest.raises(AgentError, match="no index"):
        hins_memory.attach(InMemoryStore(), embedder="hins", settings=settings)
    with pytest.raises(AgentError, match="no index"):
        Pipeline(settings, hins_memory.attach(InMemoryStore(), settings=settings)).swap("v0001")


def test_vectors_of_another_encoder_are_refused_or_re_embedded(
    settings: Settings, index: dict[str, Any], shallow_stock: Any
) -> None:
    inner = InMemoryStore(index=index | {"embed": index["embed"].embed_documents})
    inner.put(ANN, "a", {"text": "Ann plays the cello."})
    with pytest.raises(AgentError, match=r"holds 1 memories of another encoder.*reembed=True"):
        hins_memory.attach(inner, embedder="hins", settings=settings, model=shallow_stock)
    store = hins_memory.attach(inner, embedder="hins", reembed=True, settings=settings, model=shallow_stock)
    (found,) = store.search(ANN, query="Ann plays the cello.")
    assert (found.key, round(found.score, 3)) == ("a", 1.0)
    # What a listing, a get and a filter say is the wrapped store's.
    assert store.search(ANN, filter={"text": "Ann plays the cello."})[0].created_at == found.created_at
    assert not store.search(ANN, query="cello", filter={"text": "nothing"})
    assert len(inner._vectors[ANN]["a"]["text"]) == 32
    store.close()


def test_an_item_with_an_index_of_its_own_is_found_by_it_after_a_swap(
    settings: Settings, index: dict[str, Any], shallow_stock: Any
) -> None:
    inner = InMemoryStore(index=index | {"embed": index["embed"].embed_documents})
    inner.put(ANN, "a", {"text": "Ann plays the cello.", "about": {"title": "Instruments"}}, index=["about.title"])
    store = hins_memory.attach(inner, embedder="hins", reembed=True, settings=settings, model=shallow_stock)
    scores = [store.search(ANN, query=query)[0].score for query in ("Instruments", "Ann plays the cello.")]
    assert [score > 0.999 for score in scores] == [True, False]
    store.close()


def test_the_tools_of_langmem_are_recorded_in_a_graph(index: dict[str, Any], settings: Settings, logs: Any) -> None:
    langmem = pytest.importorskip("langmem", reason="needs the package langmem")
    inner = InMemoryStore(index=index | {"fields": ["content"]})
    store = HinsStore(inner, namespace=("memories", "{user}"), settings=settings)
    remember, recall = (
        make(namespace=("memories", "{langgraph_user_id}"))
        for make in (langmem.create_manage_memory_tool, langmem.create_search_memory_tool)
    )

    def act(state: State) -> dict[str, str]:
        remember.invoke({"content": state["said"]})
        return {"found": str(recall.invoke({"query": "Which instrument?"}))}

    builder = StateGraph(State)
    builder.add_node("act", act)
    builder.add_edge(START, "act")
    builder.add_edge("act", END)
    asked = {"configurable": {"langgraph_user_id": "ann"}}
    state = builder.compile(store=store).invoke({"said": "Ann plays the cello."}, asked)
    assert "Ann plays the cello." in state["found"]
    log = logs()["user=ann"]
    assert [memory.text for memory in log.memories] == ["Ann plays the cello."]
    assert [one.text for one in log.retrievals[0].results] == ["Ann plays the cello."]
    store.close()


@pytest.mark.slow
def test_a_users_own_tower_embeds_that_users_searches(
    settings: Settings, logs: Any, tiny_version: Any, tmp_path: Path
) -> None:
    inner = InMemoryStore(index={"dims": 32, "embed": HinsEmbeddings(tiny_version.path), "fields": ["text"]})
    store = HinsStore(inner, namespace=("memories", "{user}"), settings=settings)
    for user in ("ann", "bob"):
        store.put(("memories", user), "a", {"text": "The cello."})
    registry = Registry(settings)
    about = {"mode": "tower", "document_space": tiny_version.id, "scope": "user=ann"}
    write_tower(tiny_version.path, tmp_path / "tower", shift=0.3)
    own = registry.add(tmp_path / "tower", about)
    registry.serve_scope(own.id)
    time.sleep(0.5)
    found = store.batch([SearchOp(("memories", user), query="The cello.") for user in ("ann", "bob")])
    assert [one.score > 0.999 for (one,) in found] == [False, True]
    assert {key: log.retrievals[0].encoder_version for key, log in logs().items()} == {
        "user=ann": own.id,
        "user=bob": tiny_version.id,
    }
    store.close()
