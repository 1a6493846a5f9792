"""Figures, rows and tables of encoders side by side: retrieval, answers, intervals of the differences, tokens, cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hins_memory.evaluation import paired_bootstrap
from hins_memory.llm import Usage
from parts.datasets.locomo import CATEGORIES
from parts.locomo.side_by_side import EncoderRun
from parts.qa.readers import failures
from parts.qa.scores import SCORES

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ALONE", "ANSWERED", "difference_rows", "fused_example", "main_score", "report_runs", "slices", "usage_rows"]

ShowTable = Callable[[str, Sequence[str], Sequence[Sequence[Any]]], None]

#: The slice that the headline figures average over.
ANSWERED = "categories 1-4"
#: The scores of the encoder without the agent's other signals.
ALONE = ("alone_ndcg10", "alone_recall10")
_RECALLS = (1, 5, 10, 20)


def slices(run: EncoderRun) -> dict[str, NDArray[np.bool_]]:
    """Return label -> questions of what is reported: categories 1 to 4 together, and each; never an empty one."""
    categories = np.array([one.question.category for one in run.asked])
    found = {ANSWERED: categories != 5}
    found |= {f"{number} {name}": categories == number for number, name in CATEGORIES.items()}
    return {label: rows for label, rows in found.items() if rows.any()}


def main_score(runs: Sequence[EncoderRun]) -> str:
    """Return the score that examples and bars go by: the official F1 where there is a reader, else nDCG@10."""
    return "official_f1" if "official_f1" in runs[0].scores else "ndcg10"


def mean(values: NDArray[np.float64], rows: NDArray[np.bool_]) -> float | None:
    """Return the mean in percent over those of the rows that have a score; None where none has."""
    chosen = values[rows]
    chosen = chosen[np.isfinite(chosen)]
    return 100 * float(chosen.mean()) if chosen.size else None


def _row(run: EncoderRun, label: str, rows: NDArray[np.bool_]) -> dict[str, Any]:
    recalls = {f"recall{k}": mean(run.recall[:, k - 1], rows) for k in _RECALLS}
    scores = {name: mean(values, rows) for name, values in run.scores.items()}
    failed = (
        sum(bool(one.failure) for one, wanted in zip(run.readings, rows, strict=True) if wanted) if run.readings else 0
    )
    return {"encoder": run.name, "slice": label, "questions": int(rows.sum()), "failed": failed, **scores, **recalls}


def difference_rows(runs: Sequence[EncoderRun], seed: int) -> list[dict[str, Any]]:
    """Return each encoder's difference from the first one in every score, with its 95% interval.

    Paired bootstrap over questions; percent points. Answers are compared over categories 1 to 4, abstention over 5.
    """
    first, found = runs[0], []
    for run in runs[1:]:
        for name, values in run.scores.items():
            rows = slices(run).get(ANSWERED, np.zeros(len(values), dtype=bool)) | (name == "abstained")
            both = rows & np.isfinite(values) & np.isfinite(first.scores[name])
            if not both.any():
                continue
            result = paired_bootstrap(100 * values[both], 100 * first.scores[name][both], seed=seed)
            found.append(
                {
                    "encoder": run.name,
                    "against": first.name,
                    "score": name,
                    "questions": int(both.sum()),
                    "difference": result.difference,
                    "low": result.low,
                    "high": result.high,
                }
            )
    return found


def usage_rows(usage: Mapping[str, Usage]) -> list[list[Any]]:
    """Return a line for each model: what was asked, what was kept, tokens, and what it cost now and would anew."""
    return [
        [
            model,
            used.requests,
            used.retries,
            used.cached,
            used.failures,
            used.prompt_tokens + used.kept_prompt_tokens,
            used.completion_tokens + used.kept_completion_tokens,
            f"{used.cost:.4f}",
            f"{used.full_cost:.4f}",
        ]
        for model, used in usage.items()
    ]


def fused_example(run: EncoderRun) -> dict[str, Any] | None:
    """Return the first search whose score was more than a cosine, with what went into it; None where there is none."""
    found = next((one for one in run.asked if one.fused and one.details), None)
    if found is None:
        return None
    return {
        "encoder": run.name,
        "conversation": found.conversation,
        "question": found.number,
        "memory": found.ranking[0],
        **found.details,
    }


USAGE_COLUMNS = ("model", "requests", "retries", "kept", "failed", "prompt tokens", "reply tokens", "cost", "cost anew")


def report_runs(
    runs: Sequence[EncoderRun], seed: int, usage: Mapping[str, Usage], show: ShowTable
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Return figures and rows of all encoders, and show them as tables.

    Args:
        runs: the encoders, over the same questions in the same order; differences are from the first.
        seed: of the bootstrap over questions.
        usage: what each model was used for in all.
        show: prints a table.
    """
    rows = [_row(run, label, chosen) for run in runs for label, chosen in slices(run).items()]
    answered = [row for row in rows if row["slice"] == ANSWERED]
    figures = _figures(runs, answered, usage)
    names = ["ndcg10", *(f"recall{k}" for k in _RECALLS), *(name for name in ALONE if name in runs[0].scores)]
    _show(show, "LoCoMo, what the agent finds", rows, names)
    if runs[0].readings:
        _show(
            show,
            "LoCoMo, answers, categories 1 to 4 (percent)",
            [r for r in rows if r["slice"][0] != "5"],
            list(SCORES),
        )
        shown = [name for name in ("official_f1", "judge", "abstained") if name in runs[0].scores]
        _show(show, "LoCoMo, answers: judge, and abstention in category 5", rows, [*shown, "failed"])
    differences = difference_rows(runs, seed)
    if differences:
        for row in differences:
            prefix = f"{row['encoder']}_{row['score']}"
            figures |= {f"{prefix}_gain": row["difference"], f"{prefix}_gain_ci_low": row["low"]}
        show(
            f"Difference from {runs[0].name}, 95% interval, paired bootstrap over questions",
            ["", "score", "questions", "difference", "from", "to"],
            [[r["encoder"], r["score"], r["questions"], r["difference"], r["low"], r["high"]] for r in differences],
        )
    if usage:
        show("Language models", USAGE_COLUMNS, usage_rows(usage))
    return figures, [*rows, *differences, *_usage_json(runs)]


def _show(show: ShowTable, title: str, rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    kept = [row for row in rows if any(row.get(name) is not None for name in names)]
    lines = [
        [f"{row['encoder']}, {row['slice']}", row["questions"], *(row.get(name) for name in names)] for row in kept
    ]
    show(title, ["", "questions", *(name.replace("_", " ") for name in names)], lines)


def _figures(
    runs: Sequence[EncoderRun], answered: Sequence[Mapping[str, Any]], usage: Mapping[str, Usage]
) -> dict[str, float]:
    figures: dict[str, float] = {}
    for row in answered:
        values = {name: row.get(name) for name in ("ndcg10", "recall10", *ALONE, *SCORES, "judge")}
        figures |= {f"{row['encoder']}_{name}": value for name, value in values.items() if value is not None}
    for run in runs:
        if "abstained" in run.scores:
            everything = np.ones(len(run.asked), dtype=bool)
            value = mean(run.scores["abstained"], everything)
            figures |= {f"{run.name}_abstained": value} if value is not None else {}
        figures |= {f"{run.name}_failed": float(failures(run.readings).total())} if run.readings else {}
        figures |= {f"{run.name}_lost": float(run.lost)} if run.lost else {}
        if fused := sum(one.fused for one in run.asked):
            figures[f"{run.name}_fused_searches"] = float(fused)
    if usage:
        figures["cost"] = sum(used.cost for used in usage.values())
        figures["full_cost"] = sum(used.full_cost for used in usage.values())
    return figures


def _usage_json(runs: Sequence[EncoderRun]) -> list[dict[str, Any]]:
    """Return what the reader and the judge used for each encoder; kept replies count as tokens, not as cost."""
    return [
        {
            "encoder": run.name,
            "model": model,
            "requests": used.requests,
            "kept": used.cached,
            "failed": used.failures,
            "prompt_tokens": used.prompt_tokens + used.kept_prompt_tokens,
            "completion_tokens": used.completion_tokens + used.kept_completion_tokens,
            "cost": used.cost,
            "full_cost": used.full_cost,
        }
        for run in runs
        for model, used in run.usage.items()
    ]
