"""Easy negatives from outside an owner's own memories: public texts, or a sample of other owners' where allowed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hins_memory.mining.negatives.filters import guard_limit
from hins_memory.mining.settings import MineSettings
from hins_memory.types import Negative, Scope, Tier, TieredExample

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hins_memory.encoders.encoder import Encoder

__all__ = [
    "NEAR_POOL",
    "POOL_SIZE",
    "PartialExample",
    "TextPool",
    "make_pool",
    "owner_rng",
    "pool_negatives",
    "pool_priority",
]

#: Negatives of a tier are sampled from this many nearest ones that pass the filters.
NEAR_POOL = 8
#: Of all owners' memories together at most this many are kept to draw easy negatives from.
POOL_SIZE = 5_000


@dataclass(frozen=True, slots=True)
class TextPool:
    """Texts from outside an owner's memories that easy negatives may come from.

    `owners` are their scopes' keys, "" for a text that belongs to no user; `vectors` have shape (n, dim), unit length.
    """

    texts: tuple[str, ...]
    ids: tuple[str, ...]
    owners: NDArray[np.str_]
    vectors: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class PartialExample:
    """An example, and how many easy negatives from outside it still needs.

    `query_vector` and `positive_vector`, shape (dim,), are what those are chosen by; None where none is missing.
    """

    example: TieredExample
    missing_negatives: int = 0
    query_vector: NDArray[np.float32] | None = None
    positive_vector: NDArray[np.float32] | None = None


def owner_rng(scope: Scope, seed: int) -> np.random.Generator:
    """Return an owner's random generator, seeded by its key: the samples do not depend on the order of owners."""
    import numpy as np

    digest = hashlib.blake2b(scope.owner.key.encode("utf-8", "replace"), digest_size=8).digest()
    return np.random.default_rng([seed, int.from_bytes(digest, "big")])


def pool_priority(key: str, memory_id: str, seed: int) -> int:
    """Return a memory's place in a random order of all, 63 bits: the first `POOL_SIZE` are the sample.

    A digest, so that the sample is the same in whatever order the owners come.
    """
    text = f"{seed}\n{key}\n{memory_id}".encode("utf-8", "replace")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def make_pool(encoder: Encoder, texts: Sequence[str]) -> TextPool:
    """Return a pool of public texts, which belong to no owner."""
    import numpy as np

    unique = tuple(dict.fromkeys(text for text in texts if text.strip()))
    return TextPool(
        unique, ("",) * len(unique), np.asarray([""] * len(unique)), encoder.encode(unique, role="document")
    )


def pool_negatives(
    partial: PartialExample, pool: TextPool, settings: MineSettings, rng: np.random.Generator
) -> TieredExample:
    """Return the example with its missing easy negatives, from outside the owner's own memories.

    The same filters apply: the guard, and nothing that restates the positive. The owner's own texts are left out.
    """
    import numpy as np

    example = partial.example
    assert partial.query_vector is not None
    assert partial.positive_vector is not None
    key = example.scope.owner.key
    own = pool.owners == key if key else np.zeros(len(pool.texts), dtype=bool)
    scores = pool.vectors @ partial.query_vector
    limit = guard_limit(float(partial.positive_vector @ partial.query_vector), settings.guard)
    restated = pool.vectors @ partial.positive_vector >= settings.duplicate_similarity
    rows = np.flatnonzero(~own & (scores < limit) & ~restated)
    rows = rows[np.argsort(-scores[rows], kind="stable")][: max(NEAR_POOL, partial.missing_negatives)]
    places = rng.choice(len(rows), size=min(partial.missing_negatives, len(rows)), replace=False) if len(rows) else ()
    more = [
        Negative(pool.ids[row], pool.texts[row], Tier.EASY, float(scores[row]))
        for row in (int(rows[place]) for place in sorted(places))
    ]
    return TieredExample(example.scope, example.conversation, example.positive, (*example.negatives, *more))
