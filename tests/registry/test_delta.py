"""A tower as a small file: what comes out goes in again beside the same base, and beside no other."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.torch
from towers import add_tower

from hins_memory.config import Settings
from hins_memory.encoders.encoder import Encoder
from hins_memory.errors import EncoderError
from hins_memory.registry.archive import export_version, import_version
from hins_memory.registry.delta import export_delta, import_delta
from hins_memory.registry.loader import EncoderSource
from hins_memory.registry.registry import EncoderVersion, Registry

TEXTS = ["Ann: cello it is", "", "🎻 大提琴"]


@pytest.fixture
def tower(tiny_version: EncoderVersion, settings: Settings, tmp_path: Path) -> EncoderVersion:
    return add_tower(tiny_version.path, tmp_path / "tower", settings, shift=0.3)


@pytest.fixture
def other(tmp_path: Path) -> Registry:
    return Registry(Settings(home=tmp_path / "other home", project="other"))


@pytest.fixture
def delta(tower: EncoderVersion, settings: Settings, tmp_path: Path) -> Path:
    export_delta(tower, tmp_path / "tower.safetensors", EncoderSource(Registry(settings)))
    return tmp_path / "tower.safetensors"


def bring(base: EncoderVersion, other: Registry, tmp_path: Path) -> None:
    """Take the base to another project, whole."""
    export_version(base, tmp_path / "base.zip")
    import_version(tmp_path / "base.zip", other)


@pytest.mark.slow
def test_a_tower_comes_back_up_to_half_precision(
    delta: Path, tower: EncoderVersion, tiny_version: EncoderVersion, other: Registry, tmp_path: Path
) -> None:
    assert delta.stat().st_size < sum(path.stat().st_size for path in tower.path.rglob("*.safetensors")) / 100
    source = EncoderSource(other)
    with pytest.raises(EncoderError, match=f"{tiny_version.id}, is not here"):
        import_delta(delta, other, source)
    bring(tiny_version, other, tmp_path)
    found = import_delta(delta, other, source)
    here, there = Encoder.load(tower.path), Encoder.load(found.path)
    assert np.array_equal(there.encode(TEXTS), here.encode(TEXTS))
    # Half precision has 11 bits: what each factor loses is at most a two-thousandth of it.
    asked = here.encode(TEXTS, role="query")
    assert np.abs(there.encode(TEXTS, role="query") - asked).max() < 2e-3
    assert np.abs(Encoder.load(tiny_version.path).encode(TEXTS, role="query") - asked).max() > 0.1
    assert (found.manifest.parent, found.manifest.mode) == (tower.id, "tower")
    assert other.document_space(found.id) == tiny_version.id
    assert import_delta(delta, other, source).id == found.id
    assert len(other.versions()) == 2


@pytest.mark.slow
def test_a_base_with_other_weights_and_a_damaged_file_are_refused(
    delta: Path, tiny_version: EncoderVersion, other: Registry, tmp_path: Path
) -> None:
    bring(tiny_version, other, tmp_path)
    content = delta.read_bytes()
    with safetensors.safe_open(delta, "pt") as opened:
        about = json.loads(opened.metadata()["about"])
    about["base"]["sha256"] = "0" * 64
    tensors = safetensors.torch.load(content)
    changed = [
        (content[:-1] + b"?", "not those that were written"),
        (content[:-1], "not a delta of a tower, or damaged"),
        (safetensors.torch.save(tensors, {"about": json.dumps(about)}), "another encoder than the"),
        (safetensors.torch.save(tensors), "not a delta of a tower"),
    ]
    for damaged, message in changed:
        delta.write_bytes(damaged)
        with pytest.raises(EncoderError, match=message):
            import_delta(delta, other, EncoderSource(other))
    assert len(other.versions()) == 1


@pytest.mark.slow
def test_what_a_delta_cannot_hold_is_not_exported(
    tower: EncoderVersion, query_version: EncoderVersion, settings: Settings, tmp_path: Path
) -> None:
    registry = Registry(settings)
    with pytest.raises(EncoderError, match="is not a tower"):
        export_delta(query_version, tmp_path / "a.safetensors", EncoderSource(registry))
    model = Encoder.load(tower.path).model
    model[0].sub_modules["query"][0].auto_model.encoder.layer[0].output.dense.bias.data.add_(1.0)
    model.save(str(tmp_path / "more"), safe_serialization=True)
    more = registry.add(tmp_path / "more", tower.manifest.to_dict())
    with pytest.raises(EncoderError, match="more than the layers"):
        export_delta(more, tmp_path / "a.safetensors", EncoderSource(registry))
    about = {**tower.manifest.to_dict(), "settings": {"lora_rank": 2}}
    Encoder.load(tower.path).model.save(str(tmp_path / "rank"), safe_serialization=True)
    with pytest.raises(EncoderError, match="has not the rank 2"):
        export_delta(registry.add(tmp_path / "rank", about), tmp_path / "a.safetensors", EncoderSource(registry))
    assert not (tmp_path / "a.safetensors").exists()
