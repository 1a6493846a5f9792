"""Texts to vectors: the encoder that agents use, the packaged starter, and the offset that keeps scores comparable.

In: texts with a role (query or document). Out: float32 unit vectors of shape (n, dim).
"""

from hins_memory.encoders.encoder import DEFAULT_MODEL, Encoder

__all__ = [
    "DEFAULT_MODEL",
    "Encoder",
]
