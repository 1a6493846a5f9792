"""Many towers over one loaded encoder: each embeds as its own folder would, and none needs a model of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from towers import write_tower

from hins_memory.encoders.encoder import Encoder
from hins_memory.encoders.tower_bank import TowerBank
from hins_memory.errors import EncoderError

TEXTS = ["Who plays the cello?", "", "🎻 大提琴"]


@pytest.fixture
def whole_tower(tiny_folder: Path, tmp_path: Path) -> Callable[..., Encoder]:
    """Returns a tower as its folder holds it: random updates of all linear layers, and a last layer of the queries."""

    def make(seed: int, rank: int = 4) -> Encoder:
        write_tower(tiny_folder, tmp_path / f"tower-{seed}", rank=rank, shift=0.2, seed=seed)
        return Encoder.load(tmp_path / f"tower-{seed}")

    return make


@pytest.fixture
def documents(tiny_folder: Path) -> Encoder:
    return Encoder.load(tiny_folder)


@pytest.mark.slow
def test_each_tower_embeds_as_its_folder_does_also_when_they_take_turns(
    documents: Encoder, whole_tower: Callable[..., Encoder]
) -> None:
    bank = TowerBank(documents)
    # The last one's update needs more than the lowest rank that is tried.
    wholes = [whole_tower(1), whole_tower(2), whole_tower(3, rank=24)]
    towers = [bank.tower(whole) for whole in wholes]
    expected = [whole.encode(TEXTS, role="query") for whole in wholes]
    plain = Encoder(documents.model, "uncached", cache_size=0)
    before = plain.encode(TEXTS, role="query")
    wrong: list[int] = []

    def search(place: int) -> None:
        for number in range(20):
            texts = [f"{text} {number}" for text in TEXTS]
            if not np.allclose(
                towers[place].encode(texts, role="query"), wholes[place].encode(texts, role="query"), atol=1e-5
            ):
                wrong.append(place)

    for place, tower in enumerate(towers):
        assert np.allclose(tower.encode(TEXTS, role="query"), expected[place], atol=1e-5)
        assert np.array_equal(tower.encode(TEXTS), documents.encode(TEXTS))
        assert (tower.version, tower.space) == (wholes[place].version, documents.space)
    assert np.abs(expected[0] - expected[1]).max() > 0.05
    threads = [threading.Thread(target=search, args=(place,)) for place in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    # and the documents' own encoder knows nothing of them
    assert np.array_equal(plain.encode(TEXTS, role="query"), before)
    held = {one.data_ptr() for one in documents.model.parameters()}
    assert {one.data_ptr() for one in towers[0].model[0].parameters()} <= held


@pytest.mark.slow
def test_a_folder_gives_the_same_and_is_not_held(
    documents: Encoder, whole_tower: Callable[..., Encoder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = whole_tower(1)
    loaded: list[Encoder] = []
    original = Encoder.load
    monkeypatch.setattr(Encoder, "load", lambda folder: loaded.append(original(folder)) or loaded[-1])
    tower = TowerBank(documents).load(tmp_path / "tower-1")
    assert np.allclose(tower.encode(TEXTS, role="query"), whole.encode(TEXTS, role="query"), atol=1e-5)
    # but for the last layers, which are the tower's own
    assert sum(one.numel() for one in loaded[0].model.parameters()) == documents.dim * (documents.dim + 1)


@pytest.mark.slow
def test_the_documents_may_be_those_of_a_common_tower(documents: Encoder, whole_tower: Callable[..., Encoder]) -> None:
    common, own = whole_tower(1), whole_tower(2)
    tower = TowerBank(common).tower(own)
    assert np.allclose(tower.encode(TEXTS, role="query"), own.encode(TEXTS, role="query"), atol=1e-5)
    assert np.allclose(tower.encode(TEXTS), documents.encode(TEXTS), atol=1e-6)


def test_what_is_not_a_tower_is_refused(documents: Encoder, whole_tower: Callable[..., Encoder]) -> None:
    other = whole_tower(1)
    with torch.no_grad():
        other.model[0].sub_modules["query"][0].auto_model.get_input_embeddings().weight[:5].add_(1.0)
    with pytest.raises(EncoderError, match="by more than an update"):
        TowerBank(documents).tower(other)
