"""The packaged general-retrieval set, which measures what an encoder forgets by training on memories."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hins_memory.data import packaged, read_rows
from hins_memory.evaluation.evaluate import EvalQuery, EvalSet

if TYPE_CHECKING:
    from importlib.abc import Traversable

    from hins_memory.evaluation.skills import Half

__all__ = ["GENERAL_SET_NAME", "load_general"]

#: The name of the set, as it stands in reports.
GENERAL_SET_NAME = "general"


def load_general(half: Half | None = None) -> EvalSet:
    """Return the packaged general-retrieval set, or the queries of every second domain over all its documents.

    It holds over 400 queries (questions, keyword searches and statements) from over 40 domains, none about a person's
    memories. Each has one relevant passage, which mostly answers in other words; half have a distractor as well: a
    passage on the same subject that does not answer the query. All of it was written for this project.

    Args:
        half: ``choose`` is what training may look at to keep less of what it learned, ``judge`` what the gate scores;
            the two have no query in common. None means all queries.

    Returns:
        A set whose documents are all passages (``g001``) and distractors (``g001d``); every query has one relevant
        document, and its group is its domain.

    Raises:
        HinsError: the packaged file is missing or damaged.
    """
    whole = _read(packaged("general.jsonl"))
    if half is None:
        return whole
    domains = sorted({query.group for query in whole.queries})[half == "judge" :: 2]
    return replace(whole, queries=tuple(query for query in whole.queries if query.group in domains))


def _read(path: Traversable) -> EvalSet:
    documents: dict[str, str] = {}
    queries: list[EvalQuery] = []
    for row in read_rows(path, "general-retrieval set", ("id", "domain", "query", "passage", "distractor")):
        name = row["id"]
        documents[name] = row["passage"]
        if row["distractor"] is not None:
            documents[f"{name}d"] = row["distractor"]
        queries.append(EvalQuery(row["query"], frozenset({name}), group=row["domain"]))
    return EvalSet(GENERAL_SET_NAME, documents, tuple(queries))
