"""MemoryOS's files: damaged ones are set aside, and a full disk costs neither the file nor the agent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hins_adapter_memoryos import Memoryos
from llm_server import LLMServer
from memoryos_world import PAIRS, ask, options, own_memory, pages, talk

import hins_memory
from hins_memory.config import Settings


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
