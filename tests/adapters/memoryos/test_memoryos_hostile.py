"""MemoryOS's files as somebody else left them, and ids that lead elsewhere: nothing is lost, nothing is reached."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hins_adapter_memoryos import Memoryos
from hins_adapter_memoryos.events import scope_of
from hins_adapter_memoryos.files import MemoryosFiles, is_inside
from hins_adapter_memoryos.recorder import MemoryosRecorder
from llm_server import LLMServer
from memoryos_world import PAIRS, ask, assert_in_one_space, logged, options, own_memory, pages, talk

import hins_memory
from hins_memory.config import Settings
from hins_memory.encoders.encoder import Encoder
from hins_memory.errors import AgentError
from hins_memory.log.capture import Capture, flush_all
from hins_memory.types import Scope


def filled(llm: LLMServer, settings: Settings, root: Path, user: str = "ann") -> Path:
    """A store in which hins embeds; returns the user's mid-term file."""
    memory = Memoryos(**options(llm, root, user), embedder="stock", settings=settings)
    talk(memory, PAIRS[:4])
    memory.close()
    return root / "users" / user / "mid_term.json"


BROKEN = {
    "truncated": lambda text: text[: len(text) // 2],
    "deep": lambda text: '{"sessions": ' + "[" * 200_000 + "]" * 200_000 + "}",
    "list of sessions": lambda text: '{"sessions": ["a", "b"]}',
    "session of text": lambda text: '{"sessions": {"a": "b"}}',
    "pages of a number": lambda text: '{"sessions": {"a": {"details": 7}}}',
    "pages of texts": lambda text: '{"sessions": {"a": {"details": ["p"]}}}',
    "a number": lambda text: "9" * 10_000,
    "empty": lambda text: "",
}


@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.slow
def test_a_broken_file_is_set_aside_and_the_memory_goes_on(
    how: str, settings: Settings, llm: LLMServer, tmp_path: Path
) -> None:
    path = filled(llm, settings, tmp_path / "store")
    broken = BROKEN[how](path.read_text(encoding="utf-8"))
    path.write_text(broken, encoding="utf-8")
    memory = own_memory(llm, tmp_path / "store")
    hins_memory.attach(memory, settings=settings)
    (aside,) = path.parent.glob("mid_term.json.damaged-*")
    assert aside.read_text(encoding="utf-8") == broken
    talk(memory, PAIRS[4:])
    assert json.loads(path.read_text(encoding="utf-8"))["sessions"]
    memory.close()


VECTORS = {
    "another length": lambda vector: vector[:7],
    "not a number": lambda vector: [float("nan"), *vector[1:]],
    "infinite": lambda vector: [float("inf"), *vector[1:]],
    "texts": lambda vector: ["a"] * len(vector),
    "nested": lambda vector: [[number] for number in vector],
    "missing": lambda vector: None,
    "a text": lambda vector: "vector",
}


@pytest.mark.slow
@pytest.mark.parametrize("how", VECTORS)
def test_vectors_that_cannot_be_are_made_again_from_their_texts(
    how: str, settings: Settings, llm: LLMServer, tmp_path: Path, stock_encoder: Encoder
) -> None:
    path = filled(llm, settings, tmp_path / "store")
    document = json.loads(path.read_text(encoding="utf-8"))
    for session in document["sessions"].values():
        session["summary_embedding"] = VECTORS[how](session["summary_embedding"])
        session["details"][0]["page_embedding"] = VECTORS[how](session["details"][0]["page_embedding"])
    path.write_text(json.dumps(document), encoding="utf-8")
    memory = Memoryos(**options(llm, tmp_path / "store"), embedder="stock", settings=settings)
    assert pages(ask(memory, "Which instrument do I play?"))
    memory.mid_term_memory.save()
    assert assert_in_one_space(memory, stock_encoder) > 2
    memory.close()


def test_vectors_that_cannot_be_do_not_end_the_agent_of_a_recording(
    settings: Settings, llm: LLMServer, tmp_path: Path
) -> None:
    memory = own_memory(llm, tmp_path / "store")
    talk(memory, PAIRS[:3])
    path = tmp_path / "store" / "users" / "ann" / "mid_term.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    for session in document["sessions"].values():
        session["details"][0]["page_embedding"] = ["a"]
    path.write_text(json.dumps(document), encoding="utf-8")
    memory = own_memory(llm, tmp_path / "store")
    hins_memory.attach(memory, settings=settings)
    memory.add_memory(*PAIRS[4], timestamp="2026-03-09 10:00:00")
    # The vectors that can be read are the stock encoder's.
    hins_memory.attach(memory, embedder="stock", settings=settings)
    assert pages(ask(memory, "Which instrument do I play?"))


@pytest.mark.parametrize("user", ["../x", "..", "a/../../x", "a/../b", "/abs"])
def test_ids_that_lead_elsewhere_are_refused_before_anything_is_made(
    user: str, settings: Settings, llm: LLMServer, tmp_path: Path
) -> None:
    root = tmp_path / "deep" / "store"
    given = user.replace("/abs", str(tmp_path / "abs"))
    with pytest.raises(AgentError, match="outside"):
        Memoryos(**options(llm, root, given), settings=settings)
    with pytest.raises(AgentError, match="outside"):
        Memoryos(**options(llm, root), assistant_id=given, settings=settings)
    assert not root.exists()
    memory = own_memory(llm, root, given)
    with pytest.raises(AgentError, match="outside"):
        hins_memory.attach(memory, settings=settings)
    assert type(memory).__module__.startswith("memoryos")


@pytest.mark.slow
@pytest.mark.parametrize("user", ["安娜🍵", "CON", "a/b", "Ann Lee", " ann", "..ann", "x" * 200, "users", "a&b=c%d"])
def test_odd_ids_are_users_of_their_own(user: str, settings: Settings, llm: LLMServer, tmp_path: Path) -> None:
    root = tmp_path / "store"
    for one in ("ann", user):
        memory = Memoryos(**options(llm, root, one), embedder="stock", settings=settings)
        talk(memory, PAIRS[:3])
        memory.close()
    found = MemoryosFiles(root).paths()
    assert len(found) == 4 or len([path for path in found if path.name == "mid_term.json"]) == 2
    assert flush_all()
    assert {log.scope.user for log in logged(settings)} == {"ann", user}
    assert is_inside(user)


def test_what_is_no_name_is_not_recorded(settings: Settings) -> None:
    assert scope_of("ann", "bot") == Scope("ann", "bot")
    assert scope_of(Path("ann"), "bot") == Scope("ann", "bot")
    for user in ("", "\x00", "\ud800", None, 7, b"ann"):
        assert scope_of(user, "bot") is None
    with Capture(settings) as capture:
        recorder = MemoryosRecorder(capture, None)
        recorder.said({"user_input": "hello", "agent_response": "hi"})
        assert recorder.searched("q", {}, {}) == ""
        assert recorder.unnamed == 2
    assert logged(settings) == []


def test_what_has_no_id_does_not_delete_everything(settings: Settings) -> None:
    with Capture(settings) as capture:
        recorder = MemoryosRecorder(capture, Scope("ann", "bot"))
        recorder.learned({"knowledge": "Plays the cello", "timestamp": "2026-03-01 10:00:00"}, "user")
        recorder.forgotten([{"details": []}])
    (log,) = logged(settings)
    assert [memory.text for memory in log.memories] == ["Plays the cello"]


@pytest.mark.slow
def test_stores_behind_links_are_whole(
    settings: Settings, llm: LLMServer, tmp_path: Path, stock_encoder: Encoder, tiny_version: Any
) -> None:
    real, root = tmp_path / "real", tmp_path / "store"
    elsewhere = tmp_path / "elsewhere"
    for folder in (real / "users", elsewhere):
        folder.mkdir(parents=True)
    root.symlink_to(real)
    (real / "users" / "bob").symlink_to(elsewhere)
    # A link that leads to a folder above it.
    (elsewhere / "loop").symlink_to(real / "users")
    memory = Memoryos(**options(llm, root, "bob"), embedder="stock", settings=settings)
    talk(memory, PAIRS[:4])
    memory.close()
    assert elsewhere / "mid_term.json" in [
        Path(os.path.realpath(path)) for path in MemoryosFiles(root.resolve()).paths()
    ]
    memory = Memoryos(**options(llm, root, "ann"), embedder="hins", settings=settings)
    talk(memory, PAIRS[:3])
    hins_memory.Pipeline(settings, memory).swap(tiny_version.id, force=True)
    assert assert_in_one_space(memory, Encoder.load(tiny_version.path)) > 4
    memory.close()


def test_files_are_nobody_elses_to_read(settings: Settings, llm: LLMServer, tmp_path: Path) -> None:
    path = filled(llm, settings, tmp_path / "store")
    assert path.stat().st_mode & 0o077 == 0
    assert (tmp_path / "store" / ".hins").stat().st_mode & 0o077 == 0
    assert np.all([file.stat().st_mode & 0o077 == 0 for file in MemoryosFiles(tmp_path / "store").paths()])
