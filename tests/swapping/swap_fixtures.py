"""Fixtures of the swap: an encoder in another space, and a project to swap in."""

import pytest
from swap_world import World

from hins_memory.encoders.encoder import Encoder


@pytest.fixture(scope="session")
def small_encoder(shallow_folder):
    """The shallow encoder: what is stored at first."""
    return Encoder.load(shallow_folder)


@pytest.fixture(scope="session")
def other_folder(shallow_folder, tmp_path_factory):
    """An encoder in another space: the shallow one with its word embeddings shaken."""
    import torch

    encoder = Encoder.load(shallow_folder)
    torch.manual_seed(1)
    with torch.no_grad():
        words = encoder.model[0].auto_model.embeddings.word_embeddings.weight
        words.add_(torch.randn_like(words) * words.std())
    folder = tmp_path_factory.mktemp("other") / "model"
    encoder.model.save(str(folder))
    return folder


@pytest.fixture(scope="session")
def shared_model(other_folder):
    return Encoder.load(other_folder)


@pytest.fixture
def world(tmp_path, shallow_base, small_encoder, other_folder, shared_model):
    world = World(tmp_path, small_encoder, other_folder)
    world.other = shared_model
    return world
