"""Fixtures of the MemoryOS adapter's tests: a project, a tiny second encoder, a language model on the loopback."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import memoryos.utils
import pytest
from llm_server import LLMServer
from memoryos_world import REPLIES

from hins_memory.config import Settings
from hins_memory.encoder import Encoder
from hins_memory.registry import EncoderVersion, Registry


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
    SentenceTransformer(modules=[Transformer(str(raw)), Pooling(32)], device="cpu").save(str(folder))
    return folder


@pytest.fixture
def tiny_version(tiny_folder: Path, settings: Settings, tmp_path: Path) -> EncoderVersion:
    """The tiny encoder as a version of the project; not the current one."""
    copy = tmp_path / "tiny"
    shutil.copytree(tiny_folder, copy)
    return Registry(settings).add(copy, {"base": "tiny"})
