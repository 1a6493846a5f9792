"""The HTML page of encoders side by side: tables, bars by category, recall by k, examples won and lost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hins_memory.common.html import Html, Section, Series, bar_chart, line_chart, table, write_page
from hins_memory.llm import Usage
from parts.datasets.locomo import CATEGORIES
from parts.locomo.side_by_side import KS, EncoderRun
from parts.locomo.side_by_side_report import ANSWERED, USAGE_COLUMNS, main_score, mean, slices, usage_rows
from parts.qa.readers import failures
from parts.qa.scores import SCORES

__all__ = ["write_report"]

_TITLES = {
    "ndcg10": "nDCG@10",
    "alone_ndcg10": "nDCG@10, encoder alone",
    "alone_recall10": "recall@10, encoder alone",
    "abstained": "abstention",
    "judge": "judge",
    **{name: name.replace("_", " ").replace("f1", "F1").replace("bleu1", "BLEU-1") for name in SCORES},
}
_EXAMPLES = 12
_SHOWN_MEMORIES = 3
_CHARS = 400


def write_report(
    path: Path,
    runs: Sequence[EncoderRun],
    figures: Mapping[str, float],
    rows: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
) -> None:
    """Write a self-contained page of all encoders.

    Args:
        path: the file.
        runs: the encoders, over the same questions; examples are won and lost against the first.
        figures: the headline figures.
        rows: as `report_runs` returns them.
        settings: the run's settings.

    Raises:
        OSError: it cannot be written.
    """
    sections = [
        Section("Encoders side by side", _overview(runs, rows)),
        Section("By category", _bars(runs)),
        Section("Recall by k", (_recall_curve(runs),)),
    ]
    for run in runs[1:]:
        won, lost = _examples(runs[0], run, main_score(runs))
        sections.append(Section(f"Won by {run.name} against {runs[0].name}", (won,)))
        sections.append(Section(f"Lost by {run.name} against {runs[0].name}", (lost,)))
    sections.append(Section("Language models", _usage(runs)))
    plain = [[name, str(value)] for name, value in settings.items() if value not in (None, [], "")]
    sections.append(Section("Settings and figures", (table(["setting", "value"], plain), _figure_table(figures))))
    write_page(path, "LoCoMo: encoders side by side", sections)


def _figure_table(figures: Mapping[str, float]) -> Html:
    return table(["figure", "value"], [[name, float(value)] for name, value in figures.items()], digits=2)


def _overview(runs: Sequence[EncoderRun], rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    answered = [slices(run).get(ANSWERED, np.zeros(len(run.asked), dtype=bool)) for run in runs]
    lines: list[list[object]] = [
        ["questions", *(int(rows.sum()) for rows in answered)],
        ["failed", *(failures(run.readings).total() for run in runs)],
    ]
    for name in runs[0].scores:
        everything = np.ones(len(runs[0].asked), dtype=bool)
        chosen = [everything if name == "abstained" else rows for rows in answered]
        values = [mean(run.scores[name], rows) for run, rows in zip(runs, chosen, strict=True)]
        lines.append([_TITLES.get(name, name), *values])
    headline = table(["", *(run.name for run in runs)], lines)
    differences = [row for row in rows if "against" in row]
    parts: list[str] = [
        "Percent, categories 1 to 4; abstention over category 5. A question that failed scores 0.",
        headline,
    ]
    if differences:
        columns = ["encoder", "against", "score", "questions", "difference", "95% from", "to"]
        keys = ("encoder", "against", "score", "questions", "difference", "low", "high")
        parts += [
            "Differences in percent points, with the 95% interval of a paired bootstrap over questions.",
            table(columns, [[_TITLES.get(str(row[key]), row[key]) for key in keys] for row in differences]),
        ]
    return tuple(parts)


def _bars(runs: Sequence[EncoderRun]) -> tuple[str, ...]:
    labels = [f"{number} {name}" for number, name in CATEGORIES.items() if f"{number} {name}" in slices(runs[0])]

    def chart(name: str) -> Html:
        kept = [label for label in labels if mean(runs[0].scores[name], slices(runs[0])[label]) is not None]
        series = [
            Series(run.name, [_number(mean(run.scores[name], slices(run)[label])) for label in kept]) for run in runs
        ]
        return bar_chart(f"{_TITLES.get(name, name)} by category", kept, series, "percent")

    names = [name for name in ("ndcg10", "official_f1", "official_bleu1", "judge") if name in runs[0].scores]
    return tuple(chart(name) for name in names)


def _recall_curve(runs: Sequence[EncoderRun]) -> Html:
    series = []
    for run in runs:
        answered = slices(run).get(ANSWERED, np.zeros(len(run.asked), dtype=bool))
        values = [_number(mean(run.recall[:, k - 1], answered)) for k in KS]
        series.append(Series(run.name, values, [float(k) for k in KS]))
    return line_chart("Share of the evidence among the first k memories, categories 1 to 4", series, "k", "percent")


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _examples(first: EncoderRun, other: EncoderRun, name: str) -> tuple[Html, Html]:
    """Return the questions with the largest gains and losses in a score."""
    gain = np.nan_to_num(other.scores[name] - first.scores[name])
    order = np.argsort(-gain, kind="stable")
    won = [int(row) for row in order[:_EXAMPLES] if gain[row] > 0]
    lost = [int(row) for row in order[::-1][:_EXAMPLES] if gain[row] < 0]
    columns = ["question", "gold", f"{first.name}: answer", f"{other.name}: answer", "change"]
    columns += [f"{first.name}: found", f"{other.name}: found"]

    def lines(rows: Sequence[int]) -> Html:
        return table(columns, [_example(first, other, row, float(100 * gain[row])) for row in rows])

    return lines(won), lines(lost)


def _example(first: EncoderRun, other: EncoderRun, row: int, change: float) -> list[object]:
    one = first.asked[row]
    where = f"{one.question.text} ({one.conversation}, question {one.number}, {CATEGORIES[one.question.category]})"
    answers = [run.readings[row].failure or run.readings[row].text if run.readings else None for run in (first, other)]
    return [where, one.question.answer, *answers, change, _found(first, row), _found(other, row)]


def _found(run: EncoderRun, row: int) -> str:
    """Return the first memories, those that hold evidence marked."""
    one = run.asked[row]
    return " / ".join(
        ("✓ " if name in one.relevant else "") + text[:_CHARS]
        for name, text in list(zip(one.ranking, one.memories, strict=True))[:_SHOWN_MEMORIES]
    )


def _usage(runs: Sequence[EncoderRun]) -> tuple[str, ...]:
    lines = []
    for run in runs:
        used: dict[str, Usage] = dict(run.usage)
        lines += [[run.name, *row] for row in usage_rows(used)]
    if not lines:
        return ("No language model was asked.",)
    reasons = {f"{run.name}: {why}": count for run in runs for why, count in failures(run.readings).items()}
    parts: list[str] = [table(["encoder", *USAGE_COLUMNS], lines)]
    if reasons:
        parts.append(table(["questions that failed", "count"], [[why, count] for why, count in reasons.items()]))
    return tuple(parts)
