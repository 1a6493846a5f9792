"""Fixtures of the MemoryOS adapter's tests: a project, a tiny second encoder, a language model on the loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import memoryos.utils
import pytest
from llm_server import LLMServer
from memoryos_world import REPLIES

from hins_memory.config import Settings
from hins_memory.encoder import Encoder


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", project="test", log_url="")


@pytest.fixture(scope="session")
def llm() -> Iterator[LLMServer]:
    with LLMServer(REPLIES, default="You play the cello.") as server:
        yield server


@pytest.fixture(autouse=True)
def own_model(stock_encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """MemoryOS's own model, which it would load from the hub by this name: the same weights, from the package."""
    monkeypatch.setitem(memoryos.utils._model_cache, "all-MiniLM-L6-v2", stock_encoder.model)
