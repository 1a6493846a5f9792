"""Figures and tables of the PERSONAMEM benchmark, from the choices of one or more encoders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from hins_memory.evaluation import paired_bootstrap
from parts.common.screen import show_table
from parts.datasets.personamem import QUESTION_TYPES, Question
from parts.personamem.choice import Choice

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Answered", "report"]

#: What is compared with the encoders: the choice from nothing, and from the evidence.
CONTROLS = ("nothing", "evidence")

_ALL = "all"


@dataclass(frozen=True, slots=True)
class Answered:
    """The choices of one encoder, or of a control; `chooser` names what chose.

    `found` is the share of each question's evidence that was retrieved; None where it is not known.
    """

    encoder: str
    chooser: str
    choices: list[Choice]
    found: list[float | None] = field(default_factory=list)


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
    clusters = [question.context for question in questions]
    right = [_right([choice.letter for choice in one.choices], questions) for one in answers]
    for number, (one, scores) in enumerate(zip(answers, right, strict=True)):
        prefix = "" if number == 0 else f"{one.encoder if one.encoder in CONTROLS else f'encoder{number + 1}'}_"
        alone = paired_bootstrap(scores, np.zeros_like(scores), seed=seed, clusters=clusters)
        figures |= {
            f"{prefix}{name}": alone.difference,
            f"{prefix}{name}_low": alone.low,
            f"{prefix}{name}_high": alone.high,
        }
        figures[f"{prefix}unanswered"] = sum(choice.letter is None for choice in one.choices)
        if number:
            gain = paired_bootstrap(scores, right[0], seed=seed, clusters=clusters)
            figures |= {
                f"{prefix}gain": gain.difference,
                f"{prefix}gain_low": gain.low,
                f"{prefix}gain_high": gain.high,
            }
        if (evidence := _evidence(one)) is not None:
            figures[f"{prefix}evidence_recall"] = float(evidence.mean())
            first = _evidence(answers[0])
            if number and first is not None:
                gain = paired_bootstrap(evidence, first, seed=seed, clusters=clusters)
                figures |= {
                    f"{prefix}evidence_gain": gain.difference,
                    f"{prefix}evidence_gain_low": gain.low,
                    f"{prefix}evidence_gain_high": gain.high,
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


def _evidence(answered: Answered) -> NDArray[np.float64] | None:
    """Return the percentage of each question's evidence that was retrieved; None unless it is known of every one."""
    known = [share for share in answered.found if share is not None]
    return 100.0 * np.array(known) if known and len(known) == len(answered.choices) else None


def _rows(answered: Answered, questions: Sequence[Question]) -> list[dict[str, Any]]:
    right = _right([choice.letter for choice in answered.choices], questions)
    kinds = np.array([question.kind for question in questions])
    unanswered = np.array([choice.letter is None for choice in answered.choices])
    evidence = _evidence(answered)
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
                    **({} if evidence is None else {"evidence_recall": float(evidence[chosen].mean())}),
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
