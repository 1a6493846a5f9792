"""Encoders with random weights: small, quick to make, and each in a space of its own."""

from __future__ import annotations

import copy
from pathlib import Path

__all__ = ["random_encoder", "random_tower"]


def random_encoder(folder: Path, *, seed: int = 1, dim: int = 32) -> Path:
    """Write a sentence-transformers folder with random weights: a bag of words, more or less; return the folder.

    Args:
        folder: where it goes; it must not exist.
        seed: decides the weights.
        dim: the length of the vectors; even.
    """
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers import AutoTokenizer, BertConfig, BertModel

    from hins_memory.encoders.encoder import resolve_model
    from hins_memory.encoders.layers import layers

    torch.manual_seed(seed)
    raw = folder.with_name(f"{folder.name}.raw")
    tokenizer = AutoTokenizer.from_pretrained(resolve_model("stock"))
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=dim,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=2 * dim,
    )
    BertModel(config).save_pretrained(raw)
    tokenizer.save_pretrained(raw)
    modules = [layers().Transformer(str(raw)), layers().Pooling(dim)]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder))
    return folder


def random_tower(base: Path, folder: Path, *, seed: int = 1) -> Path:
    """Write a tower: it embeds documents as `base` does, and queries otherwise; return its folder.

    Args:
        base: a sentence-transformers folder.
        folder: where the tower goes.
        seed: decides how queries differ.
    """
    import torch

    from hins_memory.encoders.encoder import Encoder
    from hins_memory.encoders.sides import two_sided

    documents = Encoder.load(base).model
    queries, draw = copy.deepcopy(documents), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weights in queries.parameters():
            weights += 0.3 * weights.std(correction=0) * torch.randn(weights.shape, generator=draw)
    two_sided(queries, documents).save(str(folder), safe_serialization=True)
    return folder
