"""Saving in one step, damaged files set aside, vectors beside the files, and the lock of a flip."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hins_adapter_memoryos import Memoryos
from hins_adapter_memoryos.files import DamagedFileError, read_json, set_aside, write_json
from hins_adapter_memoryos.rw_lock import FlipLock
from hins_adapter_memoryos.vectors import VectorCache
from hypothesis import given
from hypothesis import strategies as st
from llm_server import LLMServer
from memoryos_world import PAIRS, ask, options, own_memory, pages, talk

import hins_memory
from hins_memory.config import Settings

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters()), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(st.characters()), _JSON, max_size=3))
def test_what_is_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, document: dict[str, Any]) -> None:
    path = tmp_path_factory.getbasetemp() / "document.json"
    write_json(path, document)
    assert read_json(path, dict) == document
    assert [one.name for one in path.parent.glob(".document*")] == []


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    write_json(path, {"sessions": {}}, durable=True)
    with pytest.raises(TypeError):
        write_json(path, {"sessions": object()})
    blocked = tmp_path / ".m.json.hins-tmp"
    blocked.mkdir()
    with pytest.raises(OSError, match="directory"):
        write_json(path, {"sessions": {"a": 1}})
    blocked.rmdir()
    assert read_json(path, dict) == {"sessions": {}}
    path.chmod(0o640)
    write_json(path, {})
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_damaged_file_is_told_from_a_missing_one(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    assert read_json(path, dict) is None
    for content in (b"", b'{"sessions": {', b"\xff\xfe", b"[]"):
        path.write_bytes(content)
        with pytest.raises(DamagedFileError):
            read_json(path, dict)
    first, second = set_aside(path, "It is broken"), tmp_path / "m.json"
    second.write_bytes(b"again")
    assert first.read_bytes() == b"[]"
    assert set_aside(second, "It is broken").read_bytes() == b"again"
    assert not path.exists()


@pytest.mark.parametrize(
    "name", ["users/ann/mid_term.json", "users/ann/short_term.json", "users/ann/long_term_user.json"]
)
def test_a_damaged_file_is_set_aside(
    settings: Settings, llm: LLMServer, tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    damaged = b'{"sessions": {"session_1": {"summary": "cut o'
    path.write_bytes(damaged)
    memory = own_memory(llm, tmp_path)
    hins_memory.attach(memory, settings=settings)
    talk(memory)
    memory.user_long_term_memory.add_user_knowledge("- Plays the cello")
    (kept,) = path.parent.glob(f"{path.name}.damaged-*")
    assert kept.read_bytes() == damaged
    assert str(kept) in caplog.text
    assert json.loads(path.read_text(encoding="utf-8"))
    # Loading again while attached is as careful.
    path.write_bytes(damaged)
    getattr(
        memory, {"m": "mid_term_memory", "s": "short_term_memory", "l": "user_long_term_memory"}[path.name[0]]
    ).load()
    assert sorted(one.read_bytes() for one in path.parent.glob(f"{path.name}.damaged-*")) == [damaged, damaged]


def test_a_full_disk_costs_neither_the_file_nor_the_agent(
    settings: Settings, llm: LLMServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    memory = Memoryos(**options(llm, tmp_path), settings=settings)
    talk(memory, PAIRS[:4])
    path = tmp_path / "users/ann/mid_term.json"
    before = path.read_bytes()
    # What a full disk does: the new file cannot be made.
    (tmp_path / "users/ann/.mid_term.json.hins-tmp").mkdir()
    assert pages(ask(memory, PAIRS[0][0]))[0] == PAIRS[0][0]
    assert path.read_bytes() == before
    assert "could not be saved" in caplog.text
    (tmp_path / "users/ann/.mid_term.json.hins-tmp").rmdir()
    ask(memory, PAIRS[0][0])
    assert path.read_bytes() != before


@pytest.mark.slow
def test_large_and_odd_texts(settings: Settings, llm: LLMServer, tmp_path: Path) -> None:
    memory = Memoryos(**options(llm, tmp_path), settings=settings)
    odd = ("long " * 20_000, "🎻" * 500, "half \ud83c a pair", "", "雪球")
    for text in odd:
        memory.add_memory(text, "I see.")
    memory.add_memory("The last one.", "Good.")
    again = Memoryos(**options(llm, tmp_path), settings=settings)
    stored = [page["user_input"] for one in again.mid_term_memory.sessions.values() for page in one["details"]]
    # MemoryOS itself leaves out pairs without a text.
    assert sorted(stored) == sorted(text for text in odd if text)
    ask(again, "long")


def test_vectors_are_kept_by_version(tmp_path: Path) -> None:
    cache = VectorCache(tmp_path, "v0001-abc")
    assert cache.get("pages", ["a"]) == {}
    assert not cache.path.exists()
    cache.put("pages", {"a": np.ones(3, np.float32), "b": np.zeros(3, np.float32)})
    cache.put("knowledge", {"a": np.full(2, 2, np.float32)})
    again = VectorCache(tmp_path, "v0001-abc")
    assert again.known("pages", [str(n) for n in range(2000)] + ["a", "b"]) == {"a", "b"}
    assert again.get("knowledge", ["a", "b"])["a"].tolist() == [2, 2]
    assert VectorCache(tmp_path, "").get("pages", ["a"]) == {}
    again.delete("pages", ["b", "c"])
    again.drop("pages")
    assert again.known("knowledge", ["a"]) == {"a"}
    again.drop("knowledge")
    assert not again.path.exists()


def test_a_flip_waits_for_operations_and_operations_hardly_for_a_flip() -> None:
    lock = FlipLock()
    events: list[str] = []
    running = threading.Event()

    def operate() -> None:
        with lock.shared():
            running.set()
            time.sleep(0.2)
            events.append("operation")

    def flip() -> None:
        with lock.exclusive():
            events.append("flip")

    threads = [threading.Thread(target=target) for target in (operate, flip)]
    threads[0].start()
    running.wait()
    threads[1].start()
    time.sleep(0.05)
    started = time.perf_counter()
    with lock.shared():
        waited = time.perf_counter() - started
    for thread in threads:
        thread.join()
    assert events == ["operation", "flip"]
    assert waited < 0.1
