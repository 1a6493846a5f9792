"""The newer source tree of MemoryOS, where the encoder is chosen by name.

Its tests run on that tree itself where HINS_TEST_MEMORYOS names one. Elsewhere they, and some of those of attaching
and capture, run on a variant of the installed memoryos-pro with the newer tree's interface, laid out flat as that tree.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import memoryos
import numpy as np
import pytest
from child_process import run_python
from hins_adapter_memoryos import Memoryos
from hins_adapter_memoryos.compat import shape_of
from llm_server import LLMServer
from memoryos_world import NEWER, PAIRS, agent_of, ask, assert_in_one_space, module, options, own_memory, pages, talk
from newer_tree import write_newer_tree

import hins_memory
from hins_memory.config import Settings
from hins_memory.encoders.encoder import Encoder
from hins_memory.errors import AgentError
from hins_memory.registry.registry import EncoderVersion, Registry
from hins_memory.swapping import swap_agent

HERE = Path(__file__).parent
# What the variant is tried with: the rest does not depend on the interface.
_ON_BOTH = (
    "test_memoryos_newer.py",
    "test_memoryos_attach.py::test_it_finds_what_memoryos_finds",
    "test_memoryos_attach.py::test_the_shape_is_told_from_the_object",
    "test_memoryos_capture.py::test_what_is_said_and_stored_is_in_the_log",
    "test_memoryos_capture.py::test_a_retrieval_with_its_lists_scores_and_answer",
    "test_memoryos_capture.py::test_capture_visits_nothing",
)
newer = pytest.mark.skipif(not NEWER, reason="the encoder of memoryos-pro is fixed")


def _named(tiny_folder: Path) -> dict[str, Any]:
    return {"embedding_model_name": str(tiny_folder), "embedding_model_kwargs": {"device": "cpu"}}


def _vectors(memory: Any) -> list[list[float]]:
    return [page["page_embedding"] for one in memory.mid_term_memory.sessions.values() for page in one["details"]]


@newer
def test_its_encoder_is_known(llm: LLMServer, tmp_path: Path, tiny_folder: Path) -> None:
    shape = shape_of(own_memory(llm, tmp_path, **_named(tiny_folder)))
    assert (shape.release, shape.model_name, shape.model_kwargs) == ("source", str(tiny_folder), {"device": "cpu"})


@newer
def test_encoders_by_name_and_ours_do_not_mix(
    settings: Settings, llm: LLMServer, tmp_path: Path, tiny_folder: Path, stock_encoder: Encoder
) -> None:
    named = own_memory(llm, tmp_path / "named", **_named(tiny_folder))
    default = own_memory(llm, tmp_path / "default")
    ours = Memoryos(**options(llm, tmp_path / "ours"), **_named(tiny_folder), settings=settings)
    for memory in (named, default, ours):
        talk(memory)
        assert pages(ask(memory, PAIRS[3][0]))[0] == PAIRS[3][0]
    assert {len(vector) for vector in _vectors(named)} == {32}
    assert {len(vector) for vector in _vectors(default)} == {384}
    # The model that the memory names is not what serves it, once ours does.
    assert_in_one_space(ours, stock_encoder)


@newer
def test_a_store_of_its_own_encoder_is_captured_swapped_and_given_back(
    settings: Settings, llm: LLMServer, tmp_path: Path, tiny_folder: Path, tiny_version: EncoderVersion
) -> None:
    memory = own_memory(llm, tmp_path / "store", **_named(tiny_folder))
    talk(memory)
    before = _vectors(memory)
    hins_memory.attach(memory, settings=settings)
    assert agent_of(memory).own.encoder.encode(["A cello."]).shape == (1, 32)
    assert ask(memory, PAIRS[0][0])["retrieval_id"]
    with pytest.raises(AgentError, match="reembed=True"):
        hins_memory.attach(memory, embedder="hins", settings=settings)
    hins_memory.attach(memory, embedder="hins", reembed=True, settings=settings)
    assert {len(vector) for vector in _vectors(memory)} == {384}
    swap_agent(agent_of(memory), tiny_version.id, Encoder.load(tiny_version.path), Registry(settings))
    assert module("utils")._embedding_cache == {}
    assert_in_one_space(memory, Encoder.load(tiny_version.path))
    hins_memory.detach(memory)
    assert np.allclose(before, _vectors(memory), atol=1e-5)
    assert type(memory) is memoryos.Memoryos
    assert pages(ask(memory, PAIRS[0][0]))[0] == PAIRS[0][0]


@pytest.mark.slow
@pytest.mark.skipif(NEWER, reason="these tests run on the newer tree already")
def test_the_adapter_on_the_newer_interface(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_newer_tree(tmp_path / "tree")
    monkeypatch.setenv("HINS_TEST_MEMORYOS", str(tmp_path / "tree"))
    # A run of its own: not a worker's.
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    tests = [str(HERE / name) for name in _ON_BOTH]
    code = "import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))"
    ended = run_python(code, "-q", "-p", "no:cacheprovider", *tests)
    assert ended.returncode == 0, ended.stdout
    assert "passed" in ended.stdout
