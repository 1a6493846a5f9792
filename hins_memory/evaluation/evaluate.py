"""Evaluation sets, and scores of an encoder (or of any rankings) on them, per query."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from hins_memory.errors import ConfigError
from hins_memory.evaluation.metrics import ndcg, recall, reciprocal_rank

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hins_memory.types import Role

__all__ = [
    "Candidates",
    "EvalQuery",
    "EvalSet",
    "RankingScores",
    "evaluate_encoder",
    "evaluate_encoders",
    "score_rankings",
]

DEFAULT_KS = (1, 5, 10)
#: Cosines are compared after rounding to this many decimals: the same text stored twice must tie, although the
#: matrix product may differ in its last bits from column to column.
TIE_DECIMALS = 6
# At most this many scores of (query, document) pairs are held at a time: 64 MiB of float32.
_MAX_PAIRS = 1 << 24
# Documents of several sets are encoded together, at most this many.
_MAX_DOCUMENTS = 20_000


#: Documents of one query as (id, cosine), best first.
Candidates = Sequence[tuple[str, float]]


@dataclass(frozen=True, slots=True)
class EvalQuery:
    """A query and the ids of the documents that are relevant to it.

    `group` is a label to report by, e.g. a question category; it does not affect the ranking.
    """

    text: str
    relevant: frozenset[str]
    group: str = ""


@dataclass(frozen=True, slots=True)
class EvalSet:
    """Queries over one collection of documents, e.g. one conversation; only its own documents are candidates.

    Raises:
        ConfigError: a query has no relevant document, or one that the set does not hold.
    """

    name: str
    documents: Mapping[str, str]
    queries: tuple[EvalQuery, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "queries", tuple(self.queries))
        for query in self.queries:
            if not query.relevant:
                raise ConfigError(
                    f"The query {query.text[:80]!r} of the set {self.name!r} has no relevant document.",
                    "Leave such queries out.",
                )
            if missing := sorted(query.relevant - self.documents.keys()):
                raise ConfigError(
                    f"The query {query.text[:80]!r} of the set {self.name!r} names documents that the set does not "
                    f"hold: {', '.join(missing[:5])}.",
                    "Add the documents or leave the query out.",
                )


@dataclass(frozen=True, slots=True)
class RankingScores:
    """Scores per query, in the order of the sets and of their queries; every score is 0 to 1.

    Attributes:
        ndcg: k -> array of shape (n,), nDCG@k with binary gains.
        recall: k -> array of shape (n,), share of the relevant documents among the first k.
        mrr: array of shape (n,), reciprocal rank of the first relevant document; 0 where it is not ranked.
        groups: each query's group.
        sets: the name of each query's set, which serves as its cluster in a bootstrap.
        top_scores: array of shape (n, max(ks)), the agent's or the cosine scores of the first results, best first;
            NaN where there were fewer.
        candidates: the ids and cosines of each query's first documents, best first, where they were asked for.
    """

    ndcg: Mapping[int, NDArray[np.float64]]
    recall: Mapping[int, NDArray[np.float64]]
    mrr: NDArray[np.float64]
    groups: tuple[str, ...]
    sets: tuple[str, ...]
    top_scores: NDArray[np.float64]
    candidates: tuple[Candidates, ...] = ()

    def __len__(self) -> int:
        return len(self.mrr)

    def mean(self, groups: Iterable[str] | None = None) -> dict[str, float]:
        """Return the means over queries (micro), e.g. ``{"ndcg@10": 0.31, "recall@10": 0.45, "mrr": 0.28, ...}``.

        Args:
            groups: only the queries of these groups; None means all.

        Raises:
            ConfigError: no query is in those groups.
        """
        rows = np.ones(len(self), dtype=bool)
        if groups is not None:
            rows = np.isin(np.asarray(self.groups), sorted(set(groups)))
        if not rows.any():
            raise ConfigError("There is no query to average over.", "Check the groups' names and the evaluation set.")
        table = {f"ndcg@{k}": float(values[rows].mean()) for k, values in self.ndcg.items()}
        table |= {f"recall@{k}": float(values[rows].mean()) for k, values in self.recall.items()}
        return table | {"mrr": float(self.mrr[rows].mean())}

    def by_group(self) -> dict[str, dict[str, float]]:
        """Return `mean` of each group, group -> metric -> value, in the groups' order."""
        return {group: self.mean([group]) for group in sorted(set(self.groups))}


class BatchEncoder(Protocol):
    """What embeds texts to rank: an `Encoder`, or what has its method and names the space of its documents."""

    space: str

    def encode(self, texts: Sequence[str], *, role: Role = "document", batch_size: int = 32) -> NDArray[np.float32]:
        """Return unit vectors of shape (len(texts), dim)."""


def _check_ks(ks: Sequence[int]) -> tuple[int, ...]:
    if not ks or any(k < 1 for k in ks):
        raise ConfigError(f"ks is {tuple(ks)}.", "Give at least one rank, each 1 or more.")
    return tuple(sorted(set(ks)))


def _scores_from_hits(
    hits: Sequence[NDArray[np.bool_]],
    queries: Sequence[tuple[str, EvalQuery]],
    top_scores: NDArray[np.float64],
    ks: tuple[int, ...],
) -> RankingScores:
    """Score rankings given as one row of hits per query; `queries` holds (name of the set, query)."""
    totals = np.array([len(query.relevant) for _, query in queries], dtype=np.int64)
    width = max(ks)
    # (n, width): all binary metrics at k see the first k ranks alone
    gains = np.zeros((len(queries), width))
    for row, hit in enumerate(hits):
        gains[row, : len(hit[:width])] = hit[:width]
    ideal = (np.arange(width)[None, :] < totals[:, None]).astype(np.float64)
    return RankingScores(
        ndcg={k: ndcg(gains, ideal, k) for k in ks},
        recall={k: recall(gains, totals, k) for k in ks},
        # rankings differ in length, so the rank of the first hit is taken row by row
        mrr=np.array([float(reciprocal_rank(hit[None, :])[0]) for hit in hits], dtype=np.float64),
        groups=tuple(query.group for _, query in queries),
        sets=tuple(name for name, _ in queries),
        top_scores=top_scores,
    )


def score_rankings(
    sets: Sequence[EvalSet],
    rankings: Sequence[Sequence[str]],
    *,
    scores: Sequence[Sequence[float]] | None = None,
    ks: Sequence[int] = DEFAULT_KS,
) -> RankingScores:
    """Score rankings that were made elsewhere, e.g. by an agent's search.

    Args:
        sets: the evaluation sets.
        rankings: the ranked document ids of each query, best first, in the order of the sets and of their queries;
            a document that is listed twice counts at its first rank.
        scores: the scores that belong to `rankings`, if any.
        ks: the ranks to cut at.

    Raises:
        ConfigError: the number of rankings is not the number of queries.
    """
    cuts = _check_ks(ks)
    queries = [(one.name, query) for one in sets for query in one.queries]
    if len(rankings) != len(queries) or (scores is not None and len(scores) != len(queries)):
        raise ConfigError(f"{len(rankings)} rankings for {len(queries)} queries.", "Give one ranking a query.")
    hits = [
        np.array([name in query.relevant for name in dict.fromkeys(ranking)], dtype=bool)
        for (_, query), ranking in zip(queries, rankings, strict=True)
    ]
    top = np.full((len(queries), max(cuts)), np.nan)
    for row, values in enumerate(scores or ()):
        top[row, : len(values[: max(cuts)])] = values[: max(cuts)]
    return _scores_from_hits(hits, queries, top, cuts)


def evaluate_encoder(
    encoder: BatchEncoder,
    sets: Sequence[EvalSet],
    *,
    ks: Sequence[int] = DEFAULT_KS,
    batch_size: int = 32,
    candidates: int = 0,
) -> RankingScores:
    """Rank each set's documents by cosine and score the rankings.

    Equal cosines (to six decimals) are ordered by document id, so that the result does not depend on the order in
    which documents were given.

    Args:
        encoder: encodes queries and documents in their own roles.
        sets: the evaluation sets; sets without queries are skipped.
        ks: the ranks to cut at.
        batch_size: how many texts go through the model at a time.
        candidates: how many first documents of each query to keep.

    Raises:
        ConfigError: there is no query at all.
    """
    return evaluate_encoders([encoder], sets, ks=ks, batch_size=batch_size, candidates=candidates)[0]


def evaluate_encoders(
    encoders: Sequence[BatchEncoder],
    sets: Sequence[EvalSet],
    *,
    ks: Sequence[int] = DEFAULT_KS,
    batch_size: int = 32,
    candidates: int = 0,
) -> list[RankingScores]:
    """Score several encoders as `evaluate_encoder` does one; each set is read once.

    Documents are encoded once for all encoders of one space (`Encoder.space`), such as a tower and what it replaces.

    Args:
        encoders: the encoders, at least one.
        sets: as for `evaluate_encoder`.
        ks: the ranks to cut at.
        batch_size: how many texts go through a model at a time.
        candidates: how many first documents of each query to keep.

    Returns:
        The scores of each encoder, in their order.

    Raises:
        ConfigError: there is no query at all.
    """
    cuts = _check_ks(ks)
    ranked = [_Ranked(max(cuts), candidates) for _ in encoders]
    spaces: dict[str, list[int]] = {}
    for place, encoder in enumerate(encoders):
        spaces.setdefault(encoder.space, []).append(place)
    labelled: list[tuple[str, EvalQuery]] = []
    for batch in _batches(sets):
        for members in spaces.values():
            documents = _encode_documents(encoders[members[0]], batch, batch_size)
            for place in members:
                _rank_batch(encoders[place], batch, documents, ranked[place], batch_size)
        labelled += [(one.name, query) for one in batch for query in one.queries]
    if not labelled:
        raise ConfigError("There is no query to evaluate on.", "Give at least one set with queries.")
    return [
        replace(_scores_from_hits(one.hits, labelled, np.concatenate(one.tops), cuts), candidates=tuple(one.found))
        for one in ranked
    ]


def _batches(sets: Iterable[EvalSet]) -> Iterator[list[EvalSet]]:
    """Yield the sets that have queries in groups of at most `_MAX_DOCUMENTS` documents, or of one larger set."""
    batch: list[EvalSet] = []
    documents = 0
    for one in sets:
        if not one.queries:
            continue
        if batch and documents + len(one.documents) > _MAX_DOCUMENTS:
            yield batch
            batch, documents = [], 0
        batch.append(one)
        documents += len(one.documents)
    if batch:
        yield batch


@dataclass(slots=True)
class _Ranked:
    """What ranking has given so far.

    Attributes:
        width: how many cosines of a query are kept in `tops`.
        candidates: how many documents of a query are kept in `found`.
        hits: each query's hits in rank order.
        tops: the first cosines, arrays of shape (queries, width).
        found: the first documents of each query.
    """

    width: int
    candidates: int
    hits: list[NDArray[np.bool_]] = field(default_factory=list)
    tops: list[NDArray[np.float64]] = field(default_factory=list)
    found: list[Candidates] = field(default_factory=list)


def _encode_documents(encoder: BatchEncoder, sets: Sequence[EvalSet], batch_size: int) -> NDArray[np.float32]:
    """Return the vectors of the documents of several sets, set by set in the order of the ids."""
    # One call for all sets, because the encoder sorts by length and skips texts that occur twice.
    texts = [one.documents[name] for one in sets for name in sorted(one.documents)]
    return encoder.encode(texts, role="document", batch_size=batch_size)


def _rank_batch(
    encoder: BatchEncoder,
    sets: Sequence[EvalSet],
    documents: NDArray[np.float32],
    ranked: _Ranked,
    batch_size: int,
) -> None:
    """Add the rankings of several sets' queries; `documents` is what `_encode_documents` returns."""
    names = [sorted(one.documents) for one in sets]
    queries = encoder.encode([q.text for one in sets for q in one.queries], role="query", batch_size=batch_size)
    first_document = first_query = 0
    for one, ids in zip(sets, names, strict=True):
        _rank_set(
            one.queries,
            ids,
            queries[first_query : first_query + len(one.queries)],
            documents[first_document : first_document + len(ids)],
            ranked,
        )
        first_query += len(one.queries)
        first_document += len(ids)


def _rank_set(
    queries: Sequence[EvalQuery],
    ids: Sequence[str],
    query_vectors: NDArray[np.float32],
    document_vectors: NDArray[np.float32],
    ranked: _Ranked,
) -> None:
    """Add the rankings of one set's queries."""
    position = {name: column for column, name in enumerate(ids)}
    top = np.full((len(queries), ranked.width), np.nan)
    step = max(1, _MAX_PAIRS // max(1, len(ids)))
    for start in range(0, len(queries), step):
        # (step, documents)
        cosines = np.round(query_vectors[start : start + step] @ document_vectors.T, TIE_DECIMALS)
        order = np.argsort(-cosines, axis=1, kind="stable")
        relevant = np.zeros(cosines.shape, dtype=bool)
        for row, query in enumerate(queries[start : start + step]):
            relevant[row, [position[name] for name in query.relevant]] = True
        ranked.hits += list(np.take_along_axis(relevant, order, axis=1))
        best = np.take_along_axis(cosines, order[:, : ranked.width], axis=1)
        top[start : start + step, : best.shape[1]] = best
        if ranked.candidates:
            ranked.found += [
                [(ids[column], float(row[column])) for column in columns]
                for row, columns in zip(cosines, order[:, : ranked.candidates], strict=True)
            ]
    ranked.tops.append(top)
