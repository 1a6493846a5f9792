"""A project's encoder versions: which there are, which one serves, and what every agent's index holds.

In: folders of sentence-transformers models with a manifest. Out: versions, loaded encoders, records of swaps.
"""

from hins_memory.registry.loader import EncoderSource, shared_encoder
from hins_memory.registry.registry import EncoderVersion, IndexRecord, Registry

__all__ = [
    "EncoderSource",
    "EncoderVersion",
    "IndexRecord",
    "Registry",
    "shared_encoder",
]
