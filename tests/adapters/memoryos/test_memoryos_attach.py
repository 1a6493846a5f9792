"""Attaching to a real Memoryos: it behaves as before, with our encoder, and nothing else in the process changes."""

from __future__ import annotations

import ast
import gc
import re
import sys
import threading
from importlib.metadata import requires
from itertools import takewhile
from pathlib import Path
from typing import Any

import memoryos
import numpy as np
import pytest
from hins_adapter_memoryos import Memoryos
from hins_adapter_memoryos.compat import shape_of
from hins_adapter_memoryos.plugin import plugin
from llm_server import LLMServer
from memoryos_world import NEWER, PAIRS, agent_of, ask, assert_in_one_space, module, options, own_memory, pages, talk

import hins_memory
from hins_memory.cli.doctor import Check, examine
from hins_memory.config import Settings
from hins_memory.encoders.encoder import Encoder
from hins_memory.errors import AgentError, ConfigError
from hins_memory.plugins.protocols import Agent, Index
from hins_memory.sdk.attachment import attachment_of

QUERY = "Which instrument do I play?"


def _plain(found: Any) -> Any:
    """A retrieval without ids and vectors, which differ from run to run."""
    return {
        "pages": [(page["user_input"], page["meta_info"]) for page in found["retrieved_pages"]],
        "user": [entry["knowledge"] for entry in found["retrieved_user_knowledge"]],
        "assistant": [entry["knowledge"] for entry in found["retrieved_assistant_knowledge"]],
    }


@pytest.mark.slow
def test_it_finds_what_memoryos_finds(settings: Settings, llm: LLMServer, tmp_path: Path) -> None:
    own = own_memory(llm, tmp_path / "own", mid_term_heat_threshold=2.5)
    ours = Memoryos(**options(llm, tmp_path / "ours", mid_term_heat_threshold=2.5), settings=settings)
    for memory in (own, ours):
        talk(memory)
    assert _plain(ask(own, QUERY)) == _plain(ask(ours, QUERY))
    assert len(_plain(ask(ours, QUERY))["pages"]) >= 2
    assert sorted(_plain(ask(ours, QUERY))["user"]) == ["- Grows vegetables", "- Plays the cello"]
    for question in (QUERY, PAIRS[3][0]):
        assert own.get_response(question) == ours.get_response(question) == "You play the cello."
    assert len(own.short_term_memory.get_all()) == len(ours.short_term_memory.get_all())
    assert [one["summary"] for one in own.mid_term_memory.sessions.values()] == [
        one["summary"] for one in ours.mid_term_memory.sessions.values()
    ]
    ours.close()


@pytest.mark.slow
def test_the_agent_keeps_the_protocols(settings: Settings, llm: LLMServer, tmp_path: Path) -> None:
    memory = Memoryos(**options(llm, tmp_path), settings=settings)
    agent = agent_of(memory)
    assert isinstance(agent, Agent)
    assert all(isinstance(index, Index) for index in agent.live_indexes())
    assert (agent.name, agent.store_id, agent.score_thresholds) == ("memoryos", f"memoryos:{tmp_path}", (0.1, 0.6))
    assert [index.kind for index in agent.live_indexes()] == ["summaries", "pages", "knowledge"]
    talk(memory)
    index = agent.live_indexes()[1]
    assert index.count() == 5
    assert [len(page) for page in index.pages(2)] == [2, 2, 1]
    ids = [record.id for page in index.pages(9) for record in page]
    assert {record.text for record in index.get([*ids, "missing"])} == {
        f"User: {a} Assistant: {b}" for a, b in PAIRS[:5]
    }
    assert {vector.shape for vector in index.vectors([*ids, "missing"]).values()} == {(384,)}
    with pytest.raises(AgentError, match="through MemoryOS"):
        index.drop()


@pytest.mark.slow
@pytest.mark.parametrize("base", ["stock", "starter"])
def test_a_store_of_memoryos_itself_is_served_as_it_is(
    settings: Settings,
    llm: LLMServer,
    tmp_path: Path,
    stock_encoder: Encoder,
    monkeypatch: pytest.MonkeyPatch,
    base: str,
) -> None:
    monkeypatch.setenv("HINS_BASE", base)
    memory = own_memory(llm, tmp_path)
    talk(memory)
    before = _plain(ask(memory, QUERY))
    vectors = [page["page_embedding"] for one in memory.mid_term_memory.sessions.values() for page in one["details"]]
    assert hins_memory.attach(memory, embedder="hins", settings=settings) is memory
    assert _plain(ask(memory, QUERY)) == before
    again = [page["page_embedding"] for one in memory.mid_term_memory.sessions.values() for page in one["details"]]
    assert np.allclose(vectors, again, atol=1e-6)
    assert assert_in_one_space(memory, stock_encoder) > 10


@pytest.mark.slow
def test_a_store_of_another_encoder_is_refused_or_re_embedded(
    settings: Settings, llm: LLMServer, tmp_path: Path, tiny_folder: Path
) -> None:
    memory = own_memory(llm, tmp_path)
    talk(memory)
    hins_memory.attach(memory, settings=settings)
    with pytest.raises(AgentError, match="reembed=True"):
        hins_memory.attach(memory, embedder="hins", settings=settings, model=tiny_folder)
    assert type(memory) is memoryos.Memoryos
    hins_memory.attach(memory, embedder="hins", reembed=True, settings=settings, model=tiny_folder)
    assert_in_one_space(memory, Encoder.load(tiny_folder))
    assert pages(ask(memory, PAIRS[3][0]))[0] == PAIRS[3][0]
    # From now on the store is followed, whoever opens it.
    other = own_memory(llm, tmp_path, "bob")
    hins_memory.attach(other, settings=settings, model=tiny_folder)
    talk(other)
    assert_in_one_space(other, Encoder.load(tiny_folder))


@pytest.mark.slow
def test_two_encoders_in_one_process_do_not_mix(
    settings: Settings, llm: LLMServer, tmp_path: Path, tiny_folder: Path, stock_encoder: Encoder
) -> None:
    tiny = Memoryos(**options(llm, tmp_path / "tiny"), settings=settings, model=tiny_folder)
    stock = Memoryos(**options(llm, tmp_path / "stock"), settings=settings)
    own = own_memory(llm, tmp_path / "own")
    errors: list[BaseException] = []

    def work(memory: Any) -> None:
        try:
            talk(memory)
            for question in (PAIRS[0][0], PAIRS[1][0], PAIRS[3][0], PAIRS[4][0]):
                assert pages(ask(memory, question))[0] == question
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(memory,)) for memory in (tiny, stock, own)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert_in_one_space(tiny, Encoder.load(tiny_folder))
    assert_in_one_space(stock, stock_encoder)
    sizes = {len(page["page_embedding"]) for one in own.mid_term_memory.sessions.values() for page in one["details"]}
    assert sizes == {384}
    assert type(own.mid_term_memory) is module("mid_term").MidTermMemory
    second = Memoryos(**options(llm, tmp_path / "other"), settings=settings)
    assert agent_of(second).current.encoder is agent_of(stock).current.encoder


@pytest.mark.slow
def test_detach_restores_it(settings: Settings, llm: LLMServer, tmp_path: Path, tiny_folder: Path) -> None:
    memory = own_memory(llm, tmp_path)
    talk(memory, PAIRS[:4])
    gc.collect()  # the memories of other tests, which were never detached
    functions = module("mid_term").get_embedding, module("long_term").get_embedding
    before = {name: (type(part), set(vars(part))) for name, part in vars(memory).items() if hasattr(part, "__dict__")}
    file = tmp_path / "users/ann/mid_term.json"
    stored = file.read_text(encoding="utf-8")
    hins_memory.attach(memory, embedder="hins", reembed=True, settings=settings, model=tiny_folder)
    assert module("mid_term").get_embedding is not functions[0]
    assert "hins_encoder" in file.read_text(encoding="utf-8")
    assert hins_memory.detach(memory) is memory
    assert file.read_text(encoding="utf-8") == stored
    assert {name: (type(part), set(vars(part))) for name, part in vars(memory).items() if name in before} == before
    assert type(memory) is memoryos.Memoryos
    assert (module("mid_term").get_embedding, module("long_term").get_embedding) == functions
    assert not hasattr(memory, "_hins")
    assert pages(ask(memory, PAIRS[0][0]))[0] == PAIRS[0][0]
    with pytest.raises(AgentError, match="not attached"):
        hins_memory.detach(memory)
    # Attached again, it serves as it was swapped.
    hins_memory.attach(memory, settings=settings, model=tiny_folder)
    assert_in_one_space(memory, Encoder.load(tiny_folder))


def test_one_of_ours_cannot_be_detached(settings: Settings, llm: LLMServer, tmp_path: Path) -> None:
    memory = Memoryos(**options(llm, tmp_path), settings=settings)
    assert hins_memory.attach(memory) is memory
    with pytest.raises(AgentError, match="nothing to go back to"):
        hins_memory.detach(memory)


def test_what_cannot_be_attached_is_named(settings: Settings, llm: LLMServer, tmp_path: Path) -> None:
    with pytest.raises(AgentError, match="memoryos"):
        hins_memory.attach(object())
    memory = own_memory(llm, tmp_path)
    with pytest.raises(ConfigError, match="fast"):
        hins_memory.attach(memory, fast=True)
    with pytest.raises(ConfigError, match="'best'"):
        hins_memory.attach(memory, embedder="best", settings=settings)
    del memory.mid_term_memory.file_path
    with pytest.raises(AgentError, match=r"mid_term_memory\.file_path"):
        hins_memory.attach(memory, settings=settings)
    assert attachment_of(memory) is None


def test_the_shape_is_told_from_the_object(llm: LLMServer, tmp_path: Path) -> None:
    shape = shape_of(own_memory(llm, tmp_path))
    assert (shape.release, shape.model_name, dict(shape.model_kwargs)) == (
        "source" if NEWER else "pro",
        "all-MiniLM-L6-v2",
        {},
    )
    assert set(shape.modules) == {module("mid_term"), module("long_term")}


def test_the_model_that_the_newer_tree_names_is_not_asked(
    settings: Settings, llm: LLMServer, tmp_path: Path, stock_encoder: Encoder
) -> None:
    memory = Memoryos(**options(llm, tmp_path), settings=settings)
    part = memory.mid_term_memory._hins
    with part.operation("document"):
        vector = module("mid_term").get_embedding("A cello.", model_name="BAAI/bge-m3", use_fp16=True)
    assert np.allclose(vector, stock_encoder.encode(["A cello."])[0], atol=1e-6)


def test_a_missing_package_is_answered_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin.require()
    assert plugin.hins_missing() == ""
    monkeypatch.setitem(sys.modules, "memoryos", None)
    with pytest.raises(AgentError, match="pip install --no-deps memoryos-pro"):
        plugin.require()


def test_the_extra_brings_what_memoryos_imports() -> None:
    imported: set[str] = set()
    for path in Path(memoryos.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imported.add(node.module.split(".")[0])
    own = {path.stem for path in Path(memoryos.__file__).parent.glob("*.py")}
    # The newer tree imports this one only for a model that needs it, and says so then.
    needed = imported - own - sys.stdlib_module_names - {"FlagEmbedding"}
    assert needed == {"faiss", "numpy", "openai", "sentence_transformers"}
    extra = {one for one in requires("hins-memory") or () if 'extra == "memoryos"' in one.replace("'", '"')}
    distributions = {re.split(r"[^A-Za-z0-9-]", one)[0] for one in extra}
    assert distributions == {"faiss-cpu", "numpy", "openai", "sentence-transformers"}


def test_the_doctor_says_how_to_install_memoryos(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def doctor() -> Check:
        plugins = takewhile(lambda check: check.name != "log", examine(settings))
        (found,) = [check for check in plugins if check.name == "plugin memoryos"]
        return found

    assert doctor().ok
    monkeypatch.setattr("hins_memory.sdk.plugin.find_spec", lambda name: None)
    assert (doctor().ok, doctor().fix) == (None, "pip install --no-deps memoryos-pro")


def test_the_command_line_opens_a_store_by_its_files(settings: Settings, tmp_path: Path) -> None:
    assert plugin.hins_open_agent("mem0", settings, None) is None
    with pytest.raises(ConfigError, match="data_storage_path"):
        plugin.hins_open_agent("memoryos", settings, None)
    with pytest.raises(AgentError, match="no MemoryOS store"):
        plugin.hins_open_agent("memoryos", settings, {"data_storage_path": str(tmp_path / "nowhere")})
    assert (
        plugin.hins_open_agent("memoryos", settings, {"data_storage_path": str(tmp_path)}).agent.store_id
        == f"memoryos:{tmp_path}"
    )
