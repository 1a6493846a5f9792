"""What loaded encoders have in common is in memory once."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from towers import write_tower

from hins_memory.encoders.encoder import Encoder
from hins_memory.registry.loader import shared_encoder

TEXTS = ["Ann: cello it is", "", "🎻 大提琴"]


def held(*encoders: Encoder) -> int:
    """The bytes of all weights, those in one place counted once."""
    weights = [weight for one in encoders for weight in one.model.parameters()]
    return sum({one.data_ptr(): one.numel() * one.element_size() for one in weights}.values())


@pytest.mark.slow
def test_a_base_and_its_towers_are_in_memory_once(tiny_folder: Path, tmp_path: Path) -> None:
    places = [tiny_folder]
    for seed in range(2):
        places.append(tmp_path / f"tower{seed}")
        write_tower(tiny_folder, places[-1], seed=seed)
    # In the other order, as where a tower serves and its documents' encoder is loaded for a rollback.
    served = [shared_encoder(place) for place in reversed(places)]
    tuned = 4 * sum(one.numel() for name, one in served[-1].model.named_parameters() if "embeddings" not in name)
    assert held(*served) < held(served[-1]) + 2 * tuned
    if sys.platform == "linux":
        # A file is mapped as a whole: what is left of one whose weights are shared would stay in memory.
        mapped = Path("/proc/self/maps").read_text()
        assert str(places[1] / "document_0_Transformer") not in mapped
    for encoder, place in zip(served, reversed(places), strict=True):
        alone = Encoder.load(place)
        for role in ("query", "document"):
            assert np.array_equal(encoder.encode(TEXTS, role=role), alone.encode(TEXTS, role=role))
    base = served.pop()
    served.clear()
    assert np.isfinite(base.encode(["still there"])).all()


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["tower", "lora"])
def test_a_training_changes_nothing_that_is_shared(tiny_folder: Path, tmp_path: Path, mode: str) -> None:
    from hins_memory.training import TrainSettings, train_encoder
    from hins_memory.types import Negative, Positive, Scope, Tier, TieredExample

    write_tower(tiny_folder, tmp_path / "tower")
    base, tower = shared_encoder(tiny_folder), shared_encoder(tmp_path / "tower")
    rows = [
        TieredExample(
            Scope(user="u"),
            "c",
            Positive(f"What on day {n}?", f"m{n}", f"cello {n}", "answer", 0.9),
            (Negative("h", f"lunch {n}", Tier.HARD),),
        )
        for n in range(16)
    ]
    before = [weight.clone() for one in (base, tower) for weight in one.model.parameters()]
    settings = TrainSettings(mode=mode, min_steps=2, replay=0.0, batch_size=8)
    train_encoder(rows, tmp_path / "model", base=tower, settings=settings)
    after = [weight for one in (base, tower) for weight in one.model.parameters()]
    assert all(bool((one == other).all()) for one, other in zip(before, after, strict=True))
