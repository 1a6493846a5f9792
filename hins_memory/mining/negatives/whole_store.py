"""Every stored memory of an owner that may be a negative of a query: what a tower of the queries is trained against.

Which memories these are is decided as for the negatives of examples (filters.py): nothing that is likely to be
relevant, and nothing of another owner.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from hins_memory.data.stored_vectors import StoredQuery, StoredVectorsWriter
from hins_memory.mining.negatives.filters import Pair, Pairs, allowed_negatives
from hins_memory.mining.negatives.pool import owner_rng
from hins_memory.mining.owner.neighbourhood import NEAREST, QUERIES, candidate_rows, conversation_window, positions_in
from hins_memory.mining.owner.owner import OwnerMemories
from hins_memory.mining.positives.evidence import QueryEvidence
from hins_memory.mining.settings import MineSettings
from hins_memory.mining.storage.evidence import OwnerEvidence

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hins_memory.encoders.encoder import Encoder

__all__ = ["MOST_NEGATIVES", "store_owner", "stored_queries"]

#: A query has at most this many negatives: all that are allowed up to here, else the nearest half, and a random
#: sample of the others.
MOST_NEGATIVES = 1024
# Scores of queries with memories are computed in parts of at most this many.
_CELLS = 1_000_000
# Of a very large owner, at most this many random memories are looked at for one query.
_RANDOM = 1_024


def store_owner(writer: StoredVectorsWriter, evidence: OwnerEvidence, encoder: Encoder, settings: MineSettings) -> None:
    """Write an owner's vectors, and what each of its queries is to find among them; see `stored_queries`.

    Raises:
        EncoderError: the encoder cannot encode.
        HinsError: the disk is full.
    """
    if evidence.owner is not None:
        queries = stored_queries(evidence, encoder, settings)
        writer.add(evidence.scope.owner.key, evidence.owner.vectors, queries)


def stored_queries(
    evidence: OwnerEvidence, encoder: Encoder, settings: MineSettings, most: int = MOST_NEGATIVES
) -> Iterator[StoredQuery]:
    """Yield each query of an owner that has positives, with its rows among the owner's vectors.

    Memory does not grow with the number of queries. An owner with very many memories (`EXACT_ROWS`) is not compared
    in full: nearest memories, those around the positives in their conversations, and random ones are.

    Args:
        evidence: the owner's.
        encoder: the encoder whose vectors these are; embeds the queries.
        settings: the miner's; its filters hold.
        most: a query has at most this many negatives.

    Raises:
        EncoderError: the encoder cannot encode.
    """
    owner = evidence.owner
    asked = [query for query in evidence.queries if query.positives]
    if owner is None or not asked:
        return
    draw = owner_rng(evidence.scope, settings.seed + 2)
    step = QUERIES if owner.neighbours else max(1, _CELLS // max(1, len(owner.texts)))
    for start in range(0, len(asked), step):
        part = asked[start : start + step]
        vectors = encoder.encode([query.query for query in part], role="query")
        near = None if owner.neighbours is None else owner.neighbours.nearest(vectors, NEAREST)
        for place, (query, vector) in enumerate(zip(part, vectors, strict=True)):
            rows = None if near is None else _some_rows(owner, query, near[place], draw)
            yield _stored(owner, query, vector, rows, settings, (most, draw))


def _some_rows(
    owner: OwnerMemories, query: QueryEvidence, near: NDArray[np.int64], draw: np.random.Generator
) -> NDArray[np.int64]:
    windows = [conversation_window(owner, row) for row in query.positives]
    random = draw.integers(0, len(owner.texts), _RANDOM)
    return candidate_rows(near, *windows, query.positives, query.rejected, random)


def _stored(
    owner: OwnerMemories,
    query: QueryEvidence,
    vector: NDArray[np.float32],
    rows: NDArray[np.int64] | None,
    settings: MineSettings,
    sampling: tuple[int, np.random.Generator],
) -> StoredQuery:
    """Return a query with rows of the owner's vectors; only `rows` are compared with it where they are given."""
    import numpy as np

    most, draw = sampling
    everything = len(owner.texts)
    view, moved = (owner, query) if rows is None else (owner.take(rows), _moved(query, rows))
    scores = view.vectors @ vector
    allowed = _allowed(view, moved, scores, settings)
    ordered = allowed[np.argsort(-scores[allowed], kind="stable")]
    # Those that were not looked at are like the random ones among those that were.
    population = len(ordered) + (0 if rows is None else everything - len(rows))
    kept, sampled = ordered, 0
    if len(ordered) > most or population > len(ordered):
        nearest, others = ordered[: most // 2], ordered[most // 2 :]
        sample = draw.choice(others, size=min(most - len(nearest), len(others)), replace=False)
        kept, sampled = np.concatenate([nearest, sample]), len(sample)
        population -= len(nearest)
    names = {owner.memories[row].id: row for row in query.positives}
    return StoredQuery(query.query, names, kept if rows is None else rows[kept], sampled, population if sampled else 0)


def _allowed(
    owner: OwnerMemories, query: QueryEvidence, scores: NDArray[np.float32], settings: MineSettings
) -> NDArray[np.int64]:
    """Return the rows that may be negatives beside every positive of a query."""
    import numpy as np

    pairs = [Pair(row, query) for row in query.positives]
    positives = np.asarray(list(query.positives), dtype=np.int64)
    # (pairs, n) each
    everyone: Sequence[NDArray[np.float32]] = [scores] * len(pairs)
    block = Pairs(pairs, np.stack(everyone), owner.vectors[positives] @ owner.vectors.T, owner.vectors)
    return np.flatnonzero(allowed_negatives(owner, block, settings).all(axis=0))


def _moved(query: QueryEvidence, rows: NDArray[np.int64]) -> QueryEvidence:
    """Return the evidence with the rows that it has among some of the owner's."""
    return QueryEvidence(
        query.query,
        dict(zip(positions_in(rows, query.positives), query.positives.values(), strict=True)),
        set(positions_in(rows, query.rejected)),
        set(positions_in(rows, query.plausible)),
        query.answered,
    )
