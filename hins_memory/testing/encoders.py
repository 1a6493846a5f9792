"""Encoders with random weights: small, quick to make, and each in a space of its own."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

__all__ = ["random_encoder", "random_tower"]


def random_encoder(folder: Path, *, seed: int = 1, dim: int = 32, words: int | None = None) -> Path:
    """Write a sentence-transformers folder with random weights: a bag of words, more or less; return the folder.

    Args:
        folder: where it goes; it must not exist.
        seed: decides the weights.
        dim: the length of the vectors; even.
        words: how many of the stock tokenizer's, the most frequent first, beside all characters; None for all. One of
            6,000 is loaded in half of the time.
    """
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers import AutoTokenizer, BertConfig, BertModel

    from hins_memory.encoders.encoder import resolve_model
    from hins_memory.encoders.layers import layers

    torch.manual_seed(seed)
    raw, stock = folder.with_name(f"{folder.name}.raw"), Path(resolve_model("stock"))
    if words is not None:
        _write_words(stock, raw, words)
    tokenizer = AutoTokenizer.from_pretrained(stock if words is None else raw)
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


def _write_words(stock: Path, folder: Path, most: int) -> None:
    """Write the stock tokenizer with fewer words."""
    folder.mkdir(parents=True)
    shutil.copy(stock / "tokenizer_config.json", folder)
    # In the order of their frequency, behind places that nothing uses.
    words = (stock / "vocab.txt").read_text(encoding="utf-8").splitlines()
    words = [word for word in words if not word.startswith("[unused")]
    words = [word for number, word in enumerate(words) if number < most or len(word.removeprefix("##")) == 1]
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in words), encoding="utf-8")


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
