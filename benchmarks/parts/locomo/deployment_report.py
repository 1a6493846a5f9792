"""Figures, rows and tables of the LoCoMo benchmark, from the scores of each conversation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hins_memory.evaluation import RankingScores, paired_bootstrap
from parts.datasets.locomo import ANSWERABLE, CATEGORIES

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Scored", "report_deployment", "report_stock"]

ShowTable = Callable[[str, Sequence[str], Sequence[Sequence[Any]]], None]
Report = tuple[dict[str, float], list[dict[str, Any]]]

_TITLES = {"mem0": "Mem0's fused search, top 20", "memoryos": "MemoryOS's retrieval of pages, top 20"}
_MICRO = "categories 1-4"


@dataclass(frozen=True, slots=True)
class Scored:
    """Scores by conversation: of the encoder alone, and of the agent's whole search."""

    encoder: dict[str, RankingScores]
    search: dict[str, RankingScores]
    agent: str = "mem0"

    @classmethod
    def merge(cls, parts: Sequence[Scored]) -> Scored:
        """Return the scores of all parts, which are of one agent and whose conversations are distinct."""
        merged = cls({}, {}, parts[0].agent)
        for part in parts:
            merged.encoder.update(part.encoder)
            merged.search.update(part.search)
        return merged

    def table(self, scoring: str, conversations: Sequence[str]) -> _Table:
        """Return one scoring's per-query scores over these conversations."""
        scores = self.encoder if scoring == "encoder" else self.search
        return _Table.of([scores[name] for name in conversations if name in scores])

    def scorings(self) -> dict[str, tuple[str, str]]:
        """Return scoring -> prefix of its figures, and its title."""
        return {"encoder": ("", "encoder alone"), self.agent: (f"{self.agent}_", _TITLES[self.agent])}


@dataclass(frozen=True, slots=True)
class _Table:
    """Per-query scores in percent: metric -> array of shape (n,); each query's category and conversation."""

    metrics: dict[str, NDArray[np.float64]]
    groups: NDArray[np.str_]
    conversations: NDArray[np.str_]

    @classmethod
    def of(cls, scores: Sequence[RankingScores]) -> _Table:
        def column(pick: Callable[[RankingScores], NDArray[np.float64]]) -> NDArray[np.float64]:
            return 100 * np.concatenate([pick(one) for one in scores])

        metrics = {"ndcg10": column(lambda one: one.ndcg[10])}
        for k in (1, 5, 10):
            metrics[f"recall{k}"] = column(lambda one, k=k: one.recall[k])  # type: ignore[misc]
        metrics["mrr"] = column(lambda one: one.mrr)
        groups = np.array([group for one in scores for group in one.groups])
        return cls(metrics, groups, np.array([name for one in scores for name in one.sets]))

    @property
    def answerable(self) -> NDArray[np.bool_]:
        """The queries that the headline figures average over: categories 1 to 4."""
        return np.isin(self.groups, ANSWERABLE)

    def slices(self, folds: Mapping[str, Sequence[str]]) -> dict[str, NDArray[np.bool_]]:
        """Return label -> rows of what is reported: the micro mean, each category, each fold; never an empty one."""
        found = {_MICRO: self.answerable}
        for number, name in CATEGORIES.items():
            found[f"{number} {name}"] = self.groups == str(number)
        for name, members in folds.items():
            found[f"fold {name}"] = self.answerable & np.isin(self.conversations, list(members))
        return {label: rows for label, rows in found.items() if rows.any()}

    def mean(self, rows: NDArray[np.bool_]) -> dict[str, float]:
        return {name: float(values[rows].mean()) for name, values in self.metrics.items()}


def _rows(table: _Table, folds: Mapping[str, Sequence[str]], scoring: str, encoder: str) -> list[dict[str, Any]]:
    return [
        {"scoring": scoring, "encoder": encoder, "slice": label, "queries": int(rows.sum()), **table.mean(rows)}
        for label, rows in table.slices(folds).items()
    ]


def report_stock(scored: Scored, show: ShowTable) -> Report:
    """Return figures and rows of the stock protocol and show them as tables."""
    figures: dict[str, float] = {}
    rows: list[dict[str, Any]] = []
    for scoring, (prefix, title) in scored.scorings().items():
        table = scored.table(scoring, list(scored.encoder))
        found = _rows(table, {}, scoring, "stock")
        rows += found
        if table.answerable.any():
            mean = table.mean(table.answerable)
            figures |= {f"{prefix}stock_ndcg10": mean["ndcg10"], f"{prefix}stock_recall10": mean["recall10"]}
        names = list(table.metrics)
        show(
            f"LoCoMo, {title}, stock encoder",
            ["", "questions", *names],
            [[row["slice"], row["queries"], *(row[name] for name in names)] for row in found],
        )
    return figures, rows


def report_deployment(
    stock: Scored, hins: Scored, folds: Mapping[str, Sequence[str]], seed: int, show: ShowTable
) -> Report:
    """Return figures and rows of the deployment protocol and show stock and trained encoder side by side.

    Args:
        stock: the base encoder's scores, of at least the conversations in `folds`.
        hins: the scores of each conversation with the encoder of the fold that has not seen it.
        folds: fold -> its held-out conversations.
        seed: of the bootstrap over questions.
        show: prints a table.
    """
    conversations = [name for members in folds.values() for name in members]
    figures: dict[str, float] = {}
    rows: list[dict[str, Any]] = []
    for scoring, (prefix, title) in stock.scorings().items():
        before, after = stock.table(scoring, conversations), hins.table(scoring, conversations)
        figures |= {prefix + name: value for name, value in _gain(before, after, folds, seed).items()}
        both = _rows(before, folds, scoring, "stock"), _rows(after, folds, scoring, "hins")
        rows += [*both[0], *both[1]]
        show(
            f"LoCoMo, {title}, held-out conversations",
            ["", "questions", "stock nDCG@10", "hins nDCG@10", "gain", "stock R@10", "hins R@10", "hins MRR"],
            [_side_by_side(old, new) for old, new in zip(*both, strict=True)],
        )
    return figures, rows


def _side_by_side(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Any]:
    gain = new["ndcg10"] - old["ndcg10"]
    scores = [old["ndcg10"], new["ndcg10"], f"{gain:+.1f}", old["recall10"], new["recall10"], new["mrr"]]
    return [old["slice"], old["queries"], *scores]


def _gain(before: _Table, after: _Table, folds: Mapping[str, Sequence[str]], seed: int) -> dict[str, float]:
    """Return the headline figures of one scoring, in nDCG@10 points over categories 1 to 4."""
    rows = before.answerable
    if not rows.any():
        return {}
    old, new = before.metrics["ndcg10"], after.metrics["ndcg10"]
    result = paired_bootstrap(new[rows], old[rows], seed=seed)
    by_fold = [rows & np.isin(before.conversations, list(members)) for members in folds.values()]
    return {
        "stock_ndcg10": float(old[rows].mean()),
        "hins_ndcg10": float(new[rows].mean()),
        "gain_ndcg10": result.difference,
        "gain_ci_low": result.low,
        "worst_fold_gain": min(float((new - old)[part].mean()) for part in by_fold if part.any()),
    }
