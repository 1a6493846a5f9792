"""Tiered examples as a dataset, and the order of its rows in training."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from hins_memory.data.examples import without_surrogates
from hins_memory.types import TieredExample

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["batch_stream", "data_digest", "texts_digest", "to_dataset"]


def to_dataset(examples: Sequence[TieredExample]) -> Dataset:
    """Return a dataset with the columns ``query``, ``positive``, ``negative_1`` ... in that order.

    There are as many columns of negatives as the example with most has. An example with fewer repeats its own (a
    repetition counts once in the loss); one with none repeats its positive, which the loss leaves out.
    """
    from datasets import Dataset

    columns = {
        "query": [without_surrogates(example.positive.query) for example in examples],
        "positive": [without_surrogates(example.positive.text) for example in examples],
    }
    for i in range(max((len(example.negatives) for example in examples), default=0)):
        columns[f"negative_{i + 1}"] = [without_surrogates(_negative(example, i)) for example in examples]
    return Dataset.from_dict(columns)


def _negative(example: TieredExample, index: int) -> str:
    if not example.negatives:
        return example.positive.text
    return example.negatives[index % len(example.negatives)].text


def batch_stream(examples: int, size: int, count: int, seed: int) -> Iterator[list[int]]:
    """Yield `count` batches of row numbers, each of `size` rows: one shuffled pass after another, without a gap.

    Every batch is full, also where a pass ends within it. When several processes take the batches in turn, each gets
    the same number of rows, and together they get the rows that one process would get in larger batches.

    Args:
        examples: how many rows there are, at least 1.
        size: rows a batch.
        count: how many batches.
        seed: the order is that of `numpy.random.default_rng([seed, number of the pass])`.
    """
    import numpy as np

    pending: list[int] = []
    passes = 0
    for _ in range(count):
        while len(pending) < size:
            pending += np.random.default_rng([seed, passes]).permutation(examples).tolist()
            passes += 1
        yield pending[:size]
        del pending[:size]


def data_digest(examples: Sequence[TieredExample]) -> str:
    """Return the SHA-256 of what is trained on: queries, positives and negatives in order."""
    digest = hashlib.sha256()
    for example in examples:
        row = [example.positive.query, example.positive.text, *(negative.text for negative in example.negatives)]
        digest.update(json.dumps(row).encode())
    return digest.hexdigest()


def texts_digest(texts: Sequence[str]) -> str:
    """Return the SHA-256 of texts in order."""
    return hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()
