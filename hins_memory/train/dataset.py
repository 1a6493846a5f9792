"""Tiered examples as a dataset with one column for the query, one for the positive and one for each negative."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hins_memory.types import TieredExample

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["data_digest", "to_dataset"]


def to_dataset(examples: Sequence[TieredExample], negatives: int) -> Dataset:
    """Return a dataset with the columns ``query``, ``positive``, ``negative_1`` ... in that order.

    An example with fewer negatives than columns repeats its own (a repetition counts once in the loss); one with
    none repeats its positive, which the loss leaves out.
    """
    from datasets import Dataset

    columns: dict[str, list[str]] = {
        "query": [example.positive.query for example in examples],
        "positive": [example.positive.text for example in examples],
    }
    for number in range(negatives):
        columns[f"negative_{number + 1}"] = [_negative(example, number) for example in examples]
    return Dataset.from_dict(columns)


def _negative(example: TieredExample, number: int) -> str:
    if not example.negatives:
        return example.positive.text
    return example.negatives[number % len(example.negatives)].text


def data_digest(examples: Sequence[TieredExample]) -> str:
    """Return the SHA-256 of what is trained on: queries, positives and negatives in order."""
    digest = hashlib.sha256()
    for example in examples:
        row = [example.positive.query, example.positive.text, *(negative.text for negative in example.negatives)]
        digest.update(json.dumps(row).encode())
    return digest.hexdigest()
