"""Samples of queries with the texts that were searched: how high an encoder's scores are is measured on them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hins_memory.types import Tier, TieredExample

if TYPE_CHECKING:
    from torch import Tensor

    from hins_memory.encoders.encoder import Encoder

__all__ = ["QuerySample", "QuerySampler", "SampleVectors", "samples_of_examples"]

#: A search is taken to return this many results.
RESULTS = 10
# In all, so that embedding the sample takes seconds.
_MAX_TEXTS = 1536
_MAX_QUERIES = 384
_MAX_OWNERS = 24


@dataclass(frozen=True, slots=True)
class QuerySample:
    """Some queries of one owner, and some of the texts that were searched.

    Attributes:
        queries: the queries; best those that are not trained on, because training moves their scores differently.
        texts: the texts.
        results: how many of the best among these texts correspond to what a search over all texts returns.
    """

    queries: tuple[str, ...]
    texts: tuple[str, ...]
    results: int = RESULTS


class QuerySampler:
    """Draws a sample of bounded size from any number of owners (reservoir sampling); embedding it takes seconds.

    Args:
        seed: seeds the sample.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._owners_seen = 0
        # queries, texts, and how many texts the owner has
        self._reservoir: list[tuple[list[str], list[str], int]] = []

    def add(self, queries: Iterable[str], texts: Iterable[str]) -> None:
        """Offer one owner's queries and all the texts that were searched; they may replace another owner's."""
        # Sorted, because the order of a set is not the same in every process.
        all_queries, all_texts = sorted(set(queries)), sorted(set(texts))
        if not all_queries or not all_texts:
            return
        self._owners_seen += 1
        full = len(self._reservoir) >= _MAX_OWNERS
        slot = self._random.randrange(self._owners_seen) if full else len(self._reservoir)
        if slot >= _MAX_OWNERS:
            return
        some_queries = self._random.sample(all_queries, min(len(all_queries), _MAX_QUERIES))
        some_texts = self._random.sample(all_texts, min(len(all_texts), _MAX_TEXTS))
        self._reservoir[slot : slot + 1] = [(some_queries, some_texts, len(all_texts))]

    def sample(self, exclude: frozenset[str] = frozenset()) -> list[QuerySample]:
        """Return the sample, one entry an owner.

        Args:
            exclude: queries that training learns from; left out where an owner has others.
        """
        samples = []
        for queries, texts, total in self._reservoir:
            some_texts = texts[: _MAX_TEXTS // len(self._reservoir)]
            others = [query for query in queries if query not in exclude] or queries
            some_queries = others[: _MAX_QUERIES // len(self._reservoir)]
            results = max(1, round(RESULTS * len(some_texts) / total))
            samples.append(QuerySample(tuple(some_queries), tuple(some_texts), results))
        return samples


def samples_of_examples(examples: Sequence[TieredExample], seed: int) -> list[QuerySample]:
    """Return a sample made from training examples alone: their queries, positives, and hard and medium negatives."""
    conversations: dict[tuple[str, str], tuple[list[str], list[str]]] = {}
    for example in examples:
        queries, texts = conversations.setdefault((example.scope.key, example.conversation), ([], []))
        queries.append(example.positive.query)
        texts.append(example.positive.text)
        # Easy negatives are of other conversations.
        texts.extend(negative.text for negative in example.negatives if negative.tier is not Tier.EASY)
    sampler = QuerySampler(seed)
    for queries, texts in conversations.values():
        sampler.add(queries, texts)
    return sampler.sample()


class SampleVectors:
    """The vectors of a sample under one encoder.

    Args:
        samples: the sample, one entry an owner.
        encoder: embeds the queries and the texts, each in its role.
    """

    def __init__(self, samples: Sequence[QuerySample], encoder: Encoder) -> None:
        import torch

        self.samples = samples
        queries = encoder.encode([query for sample in samples for query in sample.queries], role="query")
        texts = encoder.encode([text for sample in samples for text in sample.texts], role="document")
        #: for each owner, unit vectors of shape (queries, dim)
        self.queries: list[Tensor] = list(torch.split(torch.from_numpy(queries), [len(one.queries) for one in samples]))
        #: for each owner, unit vectors of shape (texts, dim)
        self.texts: list[Tensor] = list(torch.split(torch.from_numpy(texts), [len(one.texts) for one in samples]))

    def __len__(self) -> int:
        return len(self.samples)

    def top_scores(self, owner: int, queries: Tensor | None = None) -> Tensor:
        """Return the scores of the top results of one owner's queries, of shape (queries, results), highest first.

        Args:
            owner: its index.
            queries: vectors to use instead of the queries' own.
        """
        scores = (self.queries[owner] if queries is None else queries) @ self.texts[owner].T
        return scores.topk(min(self.samples[owner].results, scores.shape[1])).values

    def all_top_scores(self, queries: Sequence[Tensor] | None = None) -> Tensor:
        """Return the scores of the top results of all queries, of shape (n,).

        Args:
            queries: for each owner, vectors to use instead of the queries' own.
        """
        import torch

        vectors = self.queries if queries is None else queries
        return torch.cat([self.top_scores(owner, one).flatten() for owner, one in enumerate(vectors)])
