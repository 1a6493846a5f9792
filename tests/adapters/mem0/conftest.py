"""Fixtures of the Mem0 adapter's tests: a project in a temporary folder, a tiny second encoder, the log's content."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hins_memory.config import Settings
from hins_memory.registry import EncoderVersion, Registry


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", project="test", log_url="")


@pytest.fixture(autouse=True)
def no_api_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENROUTER_API_KEY", "OPENAI_BASE_URL", "HINS_LOG_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentence-transformers folder with random weights and 32 dimensions: a bag of words, more or less."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer
    from transformers import AutoTokenizer, BertConfig, BertModel

    from hins_memory.encoder import resolve_model

    torch.manual_seed(1)
    raw, folder = tmp_path_factory.mktemp("raw"), tmp_path_factory.mktemp("tiny") / "encoder"
    tokenizer = AutoTokenizer.from_pretrained(resolve_model("stock"))
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
    )
    BertModel(config).save_pretrained(raw)
    tokenizer.save_pretrained(raw)
    transformer = Transformer(str(raw))
    SentenceTransformer(modules=[transformer, Pooling(32)], device="cpu").save(str(folder))
    return folder


@pytest.fixture
def tiny_version(tiny_folder: Path, settings: Settings, tmp_path: Path) -> EncoderVersion:
    """The tiny encoder as a version of the project; not the current one."""
    copy = tmp_path / "tiny"
    shutil.copytree(tiny_folder, copy)
    return Registry(settings).add(copy, {"base": "tiny"})
