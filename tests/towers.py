"""Towers that were not trained: versions whose queries are embedded otherwise than their documents."""

from __future__ import annotations

import copy
from pathlib import Path

from hins_memory.config import Settings
from hins_memory.encoders.encoder import Encoder
from hins_memory.encoders.score_offset import with_shift
from hins_memory.encoders.sides import two_sided
from hins_memory.registry.registry import EncoderVersion, Registry


def write_tower(base: Path | str, folder: Path, *, rank: int = 4, shift: float = 0.0, seed: int = 0) -> Encoder:
    """Write a tower whose update of all linear layers is of a rank, and random; return its documents' encoder.

    Args:
        base: the documents' encoder, as for `Encoder.load`.
        folder: where it goes.
        rank: of the update of each layer.
        shift: how long the vector is that a last layer of the queries adds; 0 for no such layer.
        seed: decides the update.
    """
    import torch

    documents = Encoder.load(base)
    queries, draw = copy.deepcopy(documents.model), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in queries[0].auto_model.modules():
            if isinstance(module, torch.nn.Linear):
                rows, columns = module.weight.shape
                update = torch.randn(rows, rank, generator=draw) @ torch.randn(rank, columns, generator=draw)
                module.weight += 0.3 * module.weight.norm() / update.norm() * update
    if shift:
        unit = torch.nn.functional.normalize(torch.randn(documents.dim, generator=draw), dim=0)
        queries = with_shift(queries, shift * unit)
    two_sided(queries, documents.model).save(str(folder), safe_serialization=True)
    return documents


def add_tower(base: Path | str, folder: Path, settings: Settings, *, shift: float = 0.0) -> EncoderVersion:
    """Make such a tower a version of a project; nothing serves with it yet."""
    documents = write_tower(base, folder, shift=shift)
    about = {"mode": "tower", "base": documents.version, "document_space": documents.space}
    return Registry(settings).add(folder, {**about, "settings": {"lora_rank": 4}})
