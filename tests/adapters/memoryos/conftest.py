"""Fixtures of the MemoryOS adapter's tests: which MemoryOS, a project, a language model on the loopback.

MemoryOS is the installed one, or the tree that HINS_TEST_MEMORYOS names: a folder to be put on the path, which holds
either the package ``memoryos`` or, flat, ``memoryos.py`` and the modules beside it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

if _tree := os.environ.get("HINS_TEST_MEMORYOS"):
    if not any((Path(_tree) / name).is_file() for name in ("memoryos.py", "memoryos/__init__.py")):
        raise pytest.UsageError(f"HINS_TEST_MEMORYOS={_tree} holds neither memoryos/__init__.py nor memoryos.py")
    sys.path.insert(0, _tree)
    # For the processes that tests start.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (_tree, os.environ.get("PYTHONPATH"))))

from llm_server import LLMServer
from memoryos_world import REPLIES, module

from hins_memory.config import Settings
from hins_memory.encoders.encoder import Encoder


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
    name = "all-MiniLM-L6-v2"
    for key in (name, json.dumps({"model_name": name})):
        monkeypatch.setitem(module("utils")._model_cache, key, stock_encoder.model)
