"""What a round trains by default: a tower over the stored vectors, and `lora` where no tower would do."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
import torch

from hins_memory.config import Settings
from hins_memory.encoders.encoder import Encoder
from hins_memory.encoders.sides import two_sided
from hins_memory.encoders.starter import STARTER, starter_packaged, starter_version
from hins_memory.errors import ConfigError
from hins_memory.loop.mode import chosen_mode, training_base
from hins_memory.plugins.manager import get_plugin_manager
from hins_memory.registry.loader import EncoderSource
from hins_memory.registry.registry import Registry

if TYPE_CHECKING:
    from hins_memory.plugins.protocols import Agent


def chosen(registry: Registry, encoder: Encoder, version: str | None = None, base: str | Path | None = None) -> str:
    return chosen_mode("auto", EncoderSource(registry, base), encoder, encoder.version if version is None else version)


def test_a_tower_is_trained_over_what_is_stored(
    settings: Settings, tiny_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    registry, tiny = Registry(settings), Encoder.load(tiny_folder)
    tiny.model.save(str(tmp_path / "first"))
    # An old project: what serves was trained in `lora`, from the plain model.
    first = registry.add(tmp_path / "first", {"mode": "lora", "base": tiny.version, "trained_conversations": ["c1"]})
    encoder, source = Encoder.load(first.path), EncoderSource(registry, tiny_folder)
    assert chosen(registry, encoder, base=tiny_folder) == chosen(registry, encoder) == "tower"
    assert training_base("tower", source, encoder, first.id) == (str(first.path), ("c1",))
    assert training_base("lora", source, encoder, first.id) == (str(tiny_folder), ())
    assert chosen_mode("full", source, encoder, "") == "full"
    assert not caplog.records


@pytest.mark.skipif(not starter_packaged(), reason="needs the packaged starter")
def test_a_first_round_where_stock_is_stored_trains_stocks_tower(
    settings: Settings, stock_encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HINS_BASE")
    registry, version = Registry(settings), stock_encoder.version
    assert chosen(registry, stock_encoder) == "tower"
    assert training_base("tower", EncoderSource(registry), stock_encoder, version)[0] == "stock"
    # Asked for by name, the starter is what training begins as, which only another swap can serve.
    assert chosen(registry, stock_encoder, base=STARTER) == "lora"
    starter = SimpleNamespace(version=starter_version(), space=starter_version(), model=stock_encoder.model)
    assert chosen(registry, starter, base=STARTER) == "tower"  # type: ignore[arg-type]


def test_an_adapter_that_serves_no_tower_gets_lora_and_refuses_a_tower_at_the_start(
    settings: Settings, tiny_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tiny, source = Encoder.load(tiny_folder), EncoderSource(Registry(settings), tiny_folder)
    # Records, and nothing else.
    plugin = type("Recorder", (), {"name": "recorder", "capabilities": frozenset({"capture"})})()
    recorder, mem0 = (cast("Agent", SimpleNamespace(name=name)) for name in ("recorder", "mem0"))
    get_plugin_manager().register(plugin)
    try:
        assert chosen_mode("auto", source, tiny, tiny.version, recorder) == "lora"
        assert "the adapter of recorder cannot embed queries with another encoder" in caplog.text
        with pytest.raises(ConfigError, match="mode 'tower' cannot be served"):
            chosen_mode("tower", source, tiny, tiny.version, recorder)
    finally:
        get_plugin_manager().unregister(plugin)
    assert chosen_mode("auto", source, tiny, tiny.version, mem0) == "tower"


def test_where_a_tower_would_not_do_the_round_says_why_and_trains_lora(
    settings: Settings, tiny_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    registry, tiny = Registry(settings), Encoder.load(tiny_folder)
    # The framework's own encoder, and one of another project or a hosted one.
    assert chosen(registry, tiny, "") == chosen(registry, tiny, "text-embedding-3-small") == "lora"
    other = copy.deepcopy(tiny.model)
    with torch.no_grad():
        other[0].auto_model.get_input_embeddings().weight.add_(0.1)
    sided = Encoder(two_sided(other, tiny.model), tiny.version)
    assert chosen(registry, sided, base=tiny_folder) == "lora"
    reasons = [record.getMessage() for record in caplog.records]
    # Asked for by name, it is trained; that it will not be what it is meant to be is said.
    assert chosen_mode("tower", EncoderSource(registry), tiny, "") == "tower"
    assert "The mode 'tower' was asked for, although no encoder" in caplog.text
    assert all("embeds all memories again" in reason for reason in reasons)
    for part, reason in zip(("no encoder", "text-embedding-3-small", "differently"), reasons, strict=True):
        assert part in reason
