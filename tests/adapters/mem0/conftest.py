"""Fixtures of the Mem0 adapter's tests: a project in a temporary folder, a tiny second encoder, the log's content."""

from __future__ import annotations

from pathlib import Path

import pytest

from hins_memory.config import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", project="test", log_url="")


@pytest.fixture(autouse=True)
def no_api_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENROUTER_API_KEY", "OPENAI_BASE_URL", "HINS_LOG_URL"):
        monkeypatch.delenv(name, raising=False)
