"""Figures and tables of the PERSONAMEM benchmark, from the choices of one or more encoders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hins_memory.evaluation import paired_bootstrap
from parts.common.screen import show_table
from parts.datasets.personamem import QUESTION_TYPES, Question
from parts.personamem.choice import Choice

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Answered", "report"]

_ALL = "all"


@dataclass(frozen=True, slots=True)
class Answered:
    """The choices of one encoder; `chooser` names what chose."""

    encoder: str
    chooser: str
    choices: list[Choice]


def report(
    answers: Sequence[Answered], questions: Sequence[Question], seed: int
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Return figures and rows, in percent, and show them as tables; the first encoder is what others are compared to.

    Args:
        answers: of each encoder.
        questions: what was asked.
        seed: of the bootstrap over questions, drawn a context at a time.
    """
    rows = [row for one in answers for row in _rows(one, questions)]
    name = "accuracy" if answers[0].chooser == "letter" else f"{answers[0].chooser}_accuracy"
    figures: dict[str, float] = {}
    right = [_right([choice.letter for choice in one.choices], questions) for one in answers]
    for number, (one, scores) in enumerate(zip(answers, right, strict=True)):
        prefix = "" if number == 0 else f"encoder{number + 1}_"
        figures[f"{prefix}{name}"] = float(scores.mean())
        figures[f"{prefix}unanswered"] = sum(choice.letter is None for choice in one.choices)
        if number:
            clusters = [question.context for question in questions]
            gain = paired_bootstrap(scores, right[0], seed=seed, clusters=clusters)
            figures |= {
                f"{prefix}gain": gain.difference,
                f"{prefix}gain_low": gain.low,
                f"{prefix}gain_high": gain.high,
            }
    if answers[0].chooser == "nearest_option":
        controls = _right([choice.control for choice in answers[0].choices], questions)
        figures["question_only_accuracy"] = float(controls.mean())
    show_table(
        f"PERSONAMEM, {name.replace('_', ' ')} in percent; chance is 25.0",
        ["kind of question", "questions", *(one.encoder for one in answers)],
        _table(rows, answers),
    )
    show_table("", ["figure", "value"], [[key, value] for key, value in figures.items()])
    for one in answers:
        if failures := Counter(choice.failure for choice in one.choices if choice.letter is None):
            counted = [[failure, count] for failure, count in failures.most_common()]
            show_table(f"{one.encoder}: questions without a choice, counted as wrong", ["why", "questions"], counted)
    return figures, rows


def _right(letters: Sequence[str | None], questions: Sequence[Question]) -> NDArray[np.float64]:
    """Return 100 or 0 for each question."""
    return np.array([100.0 * (letter == one.correct) for letter, one in zip(letters, questions, strict=True)])


def _rows(answered: Answered, questions: Sequence[Question]) -> list[dict[str, Any]]:
    right = _right([choice.letter for choice in answered.choices], questions)
    kinds = np.array([question.kind for question in questions])
    unanswered = np.array([choice.letter is None for choice in answered.choices])
    extra = sorted(set(kinds.tolist()) - set(QUESTION_TYPES))
    rows = []
    for kind in (_ALL, *QUESTION_TYPES, *extra):
        chosen = np.ones(len(kinds), dtype=bool) if kind == _ALL else kinds == kind
        if chosen.any():
            rows.append(
                {
                    "encoder": answered.encoder,
                    "kind": kind,
                    "questions": int(chosen.sum()),
                    "accuracy": float(right[chosen].mean()),
                    "unanswered": int(unanswered[chosen].sum()),
                }
            )
    return rows


def _table(rows: Sequence[dict[str, Any]], answers: Sequence[Answered]) -> list[list[Any]]:
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    per_encoder = len(kinds)
    columns = [rows[start : start + per_encoder] for start in range(0, len(rows), per_encoder)]
    return [
        [kind, columns[0][number]["questions"], *(column[number]["accuracy"] for column in columns)]
        for number, kind in enumerate(kinds)
    ]
