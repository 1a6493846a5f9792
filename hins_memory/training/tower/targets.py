"""What the queries of a training are to find, and among which stored vectors."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from hins_memory.data.examples import without_surrogates
from hins_memory.data.stored_vectors import StoredQuery, StoredVectors
from hins_memory.training.query_samples import RESULTS
from hins_memory.types import TieredExample

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hins_memory.encoders.encoder import Encoder

__all__ = ["Target", "Targets"]

# Where only examples are known: a text that is not a negative of the query's own stays under this share of the
# positive's cosine with the query (arXiv 2407.15831), and under this cosine with the positive.
_GUARD, _RESTATED = 0.95, 0.9
#: A query has at most this many negatives where only examples are known, sampled from all that are allowed.
_MOST_NEGATIVES = 1024

_Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Target:
    """A query with what it is to find.

    Attributes:
        query: the text.
        source: which of the arrays of vectors the rows are of.
        positives: rows, of shape (p,).
        weights: how sure each positive is; they add up to 1.
        negatives: rows, of shape (n,).
        sampled: how many negatives, at the end, are a random sample; 0 when none is.
        population: how many rows that sample was drawn from.
        height: the mean of the query's best scores under the base; None where it was not measured.
    """

    query: str
    source: int
    positives: NDArray[np.int64]
    weights: NDArray[np.float32]
    negatives: NDArray[np.int64]
    sampled: int = 0
    population: int = 0
    height: float | None = None


class Targets(Sequence[Target]):
    """The distinct queries of examples, each with all its positives and what is stored beside them.

    Stored vectors are read from their files as they are needed (float16, mapped). Queries that are not among them,
    packaged ones included, look among the positives and negatives of the examples of their own owner, which are
    embedded once and kept in memory. No query sees a text of another owner, except those that mining gave it.

    Args:
        examples: what is learned.
        stored: the stored vectors of their owners; None where only the examples are known.
        documents: the encoder of the documents, whose vectors these are.
        heights: whether heights are measured where queries have to be embedded for them alone.
    """

    def __init__(
        self,
        examples: Sequence[TieredExample],
        stored: StoredVectors | None,
        documents: Encoder,
        *,
        heights: bool = True,
    ) -> None:
        import numpy as np

        known: dict[_Key, list[TieredExample]] = {}
        for example in examples:
            known.setdefault(_key(example), []).append(example)
        self._targets: list[Target] = []
        self._vectors: list[NDArray[Any]] = [np.empty((0, documents.dim), dtype=np.float16)]
        if stored is not None:
            self._vectors[0] = stored.vectors(documents.dim)
            for owner, query in stored.queries():
                found = known.get((owner, query.query), [])
                if target := _of_stored(query, found):
                    self._targets.append(target)
                    del known[owner, query.query]
        if heights:
            self._measure_heights(documents)
        owners: dict[str, list[list[TieredExample]]] = {}
        for (owner, _), rows in known.items():
            owners.setdefault(owner, []).append(rows)
        for groups in owners.values():
            vectors, targets = _of_examples(groups, len(self._vectors), documents)
            self._vectors.append(vectors)
            self._targets += targets

    def _measure_heights(self, documents: Encoder) -> None:
        asked = documents.encode([target.query for target in self._targets], role="query")
        for place, (target, vector) in enumerate(zip(self._targets, asked, strict=True)):
            self._targets[place] = replace(target, height=_height(self.vectors(target) @ vector))

    def __len__(self) -> int:
        return len(self._targets)

    def __getitem__(self, index: Any) -> Any:
        return self._targets[index]

    def __iter__(self) -> Iterator[Target]:
        return iter(self._targets)

    def vectors(self, target: Target) -> NDArray[np.float32]:
        """Return the vectors of a query's positives and negatives, of shape (p + n, dim)."""
        import numpy as np

        rows = np.concatenate([target.positives, target.negatives])
        found: NDArray[np.float32] = self._vectors[target.source][rows].astype(np.float32)
        return found

    def digest(self) -> str:
        """Return the SHA-256 of the queries with their rows, to tell whether a cut training is the same."""
        digest = hashlib.sha256()
        for one in self:
            digest.update(one.query.encode("utf-8", "surrogatepass"))
            for values in (one.positives, one.weights, one.negatives):
                digest.update(values.tobytes())
        return digest.hexdigest()


def _height(scores: NDArray[np.float32]) -> float:
    import numpy as np

    return float(np.sort(scores)[-RESULTS:].mean())


def _key(example: TieredExample) -> _Key:
    return without_surrogates(example.scope.owner.key), without_surrogates(example.positive.query)


def _of_stored(query: StoredQuery, examples: Sequence[TieredExample]) -> Target | None:
    """Return what a stored query is to find of its positives, those that are in examples; None without any."""
    sure: dict[int, float] = {}
    for example in examples:
        row = query.positives.get(example.positive.memory_id)
        if row is not None:
            sure[row] = max(sure.get(row, 0.0), example.positive.confidence)
    if not sure or not len(query.negatives):
        return None
    positives, weights = _weighted(sure)
    return Target(query.query, 0, positives, weights, query.negatives, query.sampled, query.population)


def _weighted(sure: Mapping[int, float]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    import numpy as np

    values = np.asarray([max(value, 1e-3) for value in sure.values()], dtype=np.float32)
    return np.asarray(list(sure), dtype=np.int64), values / values.sum()


def _of_examples(
    groups: Sequence[Sequence[TieredExample]], source: int, documents: Encoder
) -> tuple[NDArray[np.float16], list[Target]]:
    """Return the vectors of one owner's texts, and the targets of its queries, whose examples are a group each."""
    import numpy as np

    numbers: dict[str, int] = {}
    for example in (example for rows in groups for example in rows):
        for text in (example.positive.text, *(negative.text for negative in example.negatives)):
            numbers.setdefault(text, len(numbers))
    texts = documents.encode(list(numbers), role="document")
    asked = documents.encode([rows[0].positive.query for rows in groups], role="query")
    draw = np.random.default_rng(0)
    targets = []
    for rows, vector in zip(groups, asked, strict=True):
        sure: dict[int, float] = {}
        for example in rows:
            row = numbers[example.positive.text]
            sure[row] = max(sure.get(row, 0.0), example.positive.confidence)
        positives, weights = _weighted(sure)
        scores, near = texts @ vector, (texts @ texts[positives].T).max(axis=1)
        lowest = float(scores[positives].min())
        allowed = (scores < lowest - (1 - _GUARD) * abs(lowest)) & (near < _RESTATED)
        # What mining chose has passed its own guard.
        allowed[[numbers[one.text] for example in rows for one in example.negatives]] = True
        allowed[positives] = False
        negatives = np.flatnonzero(allowed)
        if not len(negatives):
            continue
        population = len(negatives)
        if population > _MOST_NEGATIVES:
            negatives = np.sort(draw.choice(negatives, _MOST_NEGATIVES, replace=False))
        sampled = len(negatives) if population > len(negatives) else 0
        height = _height(scores[np.concatenate([positives, negatives])])
        sampling = (sampled, population if sampled else 0)
        targets.append(Target(rows[0].positive.query, source, positives, weights, negatives, *sampling, height))
    return texts.astype(np.float16), targets
