"""What training looks at beside its examples: traffic, for the scores, and sets for stopping and for what is lost."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hins_memory.errors import ConfigError
from hins_memory.evaluation.gate import GateSettings
from hins_memory.types import Tier, TieredExample

if TYPE_CHECKING:
    from torch import Tensor

    from hins_memory.encoders.encoder import Encoder
    from hins_memory.evaluation import EvalSet

__all__ = ["Samples", "Traffic", "TrafficSampler", "TrafficVectors", "traffic_of_examples"]

#: How many results a search is taken to give.
RESULTS = 10
# In all, so that embedding the sample takes seconds.
_TEXTS = 1536
_QUERIES = 384
_OWNERS = 24


@dataclass(frozen=True, slots=True)
class Traffic:
    """Some queries of one owner, and some of the texts that were searched.

    Attributes:
        queries: the queries; best those that are not learned from, whose scores training moves otherwise than most.
        texts: the texts.
        results: how many of the best among these texts correspond to what a search over all of them gives.
    """

    queries: tuple[str, ...]
    texts: tuple[str, ...]
    results: int = RESULTS


@dataclass(frozen=True, slots=True)
class Samples:
    """What training looks at beside the examples; it learns none of it.

    Attributes:
        traffic: queries with the texts that they were asked of, best not those of the examples; the `query` mode
            holds their scores about where they were. Without any, what the examples show of it is used.
        unseen: the same of conversations that are not trained on. On them the scores are brought back to where they
            were: only how high scores are is looked at, and one number set. Without any, `full` and `lora` use
            `traffic`, whose scores training moves further.
        held_out: what early stopping looks at (`TrainSettings.patience`), best not what the result is judged by.
        general: a general-retrieval set that must not get much worse; None leaves that open.
        general_loss: how much nDCG@10 it may lose, 0 to 1, before less of what was learned is kept.
    """

    traffic: Sequence[Traffic] = ()
    unseen: Sequence[Traffic] = ()
    held_out: Sequence[EvalSet] = ()
    general: EvalSet | None = None
    general_loss: float = GateSettings().general_loss_in_training

    def __post_init__(self) -> None:
        if not 0 <= self.general_loss <= 1:
            raise ConfigError(f"general_loss is {self.general_loss}.", "Use 0 to 1; 0.01 is one point.")


class TrafficSampler:
    """Keeps a sample of traffic that takes seconds to embed, however much passes by.

    Args:
        seed: seeds the sample.
    """

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)
        self._seen = 0
        # queries, texts, and how many texts there were
        self._kept: list[tuple[list[str], list[str], int]] = []

    def see(self, queries: Iterable[str], texts: Iterable[str]) -> None:
        """Look at one owner's queries and at all the texts that they were asked of."""
        # Sorted, because the order of a set is not the same in every process.
        asked, there = sorted(set(queries)), sorted(set(texts))
        if not asked or not there:
            return
        self._seen += 1
        place = len(self._kept) if len(self._kept) < _OWNERS else self._draw.randrange(self._seen)
        if place >= _OWNERS:
            return
        queries_kept = self._draw.sample(asked, min(len(asked), _QUERIES))
        row = (queries_kept, self._draw.sample(there, min(len(there), _TEXTS)), len(there))
        self._kept[place : place + 1] = [row]

    def traffic(self, learned: frozenset[str] = frozenset()) -> list[Traffic]:
        """Return the sample.

        Args:
            learned: queries that training learns from; left out where an owner has others.
        """
        found = []
        for queries, texts, total in self._kept:
            kept = texts[: _TEXTS // len(self._kept)]
            others = [query for query in queries if query not in learned] or queries
            chosen = others[: _QUERIES // len(self._kept)]
            found.append(Traffic(tuple(chosen), tuple(kept), max(1, round(RESULTS * len(kept) / total))))
        return found


def traffic_of_examples(examples: Sequence[TieredExample], seed: int) -> list[Traffic]:
    """Return what can be known of the traffic from the examples alone: their queries, positives and near negatives."""
    owners: dict[tuple[str, str], tuple[list[str], list[str]]] = {}
    for example in examples:
        queries, texts = owners.setdefault((example.scope.key, example.conversation), ([], []))
        queries.append(example.positive.query)
        texts.append(example.positive.text)
        # Easy negatives are of other conversations.
        texts.extend(one.text for one in example.negatives if one.tier is not Tier.EASY)
    sampler = TrafficSampler(seed)
    for queries, texts in owners.values():
        sampler.see(queries, texts)
    return sampler.traffic()


class TrafficVectors:
    """The vectors of a sample of traffic under one encoder.

    Args:
        traffic: the sample.
        encoder: embeds the queries and the texts, each in its role.
    """

    def __init__(self, traffic: Sequence[Traffic], encoder: Encoder) -> None:
        import torch

        self.traffic = traffic
        queries = encoder.encode([query for one in traffic for query in one.queries], role="query")
        texts = encoder.encode([text for one in traffic for text in one.texts], role="document")
        #: for each owner, unit vectors of shape (queries, dim)
        self.queries: list[Tensor] = list(torch.split(torch.from_numpy(queries), [len(one.queries) for one in traffic]))
        #: for each owner, unit vectors of shape (texts, dim)
        self.texts: list[Tensor] = list(torch.split(torch.from_numpy(texts), [len(one.texts) for one in traffic]))

    def __len__(self) -> int:
        return len(self.traffic)

    def best_scores(self, owner: int, queries: Tensor | None = None) -> Tensor:
        """Return the scores of the best results of one owner's queries, of shape (queries, results), highest first.

        Args:
            owner: its number.
            queries: vectors to use in the place of the queries' own.
        """
        scores = (self.queries[owner] if queries is None else queries) @ self.texts[owner].T
        return scores.topk(min(self.traffic[owner].results, scores.shape[1])).values

    def all_best_scores(self) -> Tensor:
        """Return the scores of the best results of all queries in one row."""
        import torch

        return torch.cat([self.best_scores(owner).flatten() for owner in range(len(self))])
