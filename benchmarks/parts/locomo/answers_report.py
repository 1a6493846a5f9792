"""Rows and the page of answers side by side: scores, intervals of the differences, and the share of the room taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hins_memory.evaluation import paired_bootstrap
from parts.locomo.answers import ENDS, EVIDENCE, Answers
from parts.qa.scores import SCORES

__all__ = ["Cell", "answer_rows", "figures_of", "page"]

_MAIN = "official_f1"
_SAMPLES = 10_000
#: What tells a set of answers: the reader's model, the name of its instruction, and how many memories it is shown.
Cell = tuple[str, str, int]


def answer_rows(cell: Cell, answers: Answers, base: str, seed: int) -> list[dict[str, Any]]:
    """Return a row for each source: its scores in percent, and its difference from the source `base`.

    ``SCORE_gain``, ``_low`` and ``_high`` are in percent points; the 95% interval is of a paired bootstrap over
    questions. ``room`` is the share of the way from `base` to the evidence, in official F1, with its interval.
    """
    model, prompt, k = cell
    rows = []
    for source, scores in answers.scores.items():
        row: dict[str, Any] = {"model": model, "prompt": prompt, "k": k, "source": source}
        row |= {"questions": answers.questions, "drawn": answers.drawn, "failed": answers.failed}
        row |= {name: 100 * float(values.mean()) for name, values in scores.items()}
        if source != base and base in answers.scores:
            for name in SCORES:
                result = paired_bootstrap(100 * scores[name], 100 * answers.scores[base][name], seed=seed)
                row |= {f"{name}_gain": result.difference, f"{name}_low": result.low, f"{name}_high": result.high}
            if source not in ENDS and EVIDENCE in answers.scores:
                found, start, best = (answers.scores[name][_MAIN] for name in (source, base, EVIDENCE))
                room = _room(found, start, best, seed)
                row |= dict(zip(("room", "room_low", "room_high"), room, strict=True))
        rows.append(row)
    return rows


def _room(
    found: NDArray[np.float64], base: NDArray[np.float64], best: NDArray[np.float64], seed: int
) -> tuple[float | None, float | None, float | None]:
    """Return the share of the room in percent, with its interval; None where there is no room.

    A resample without room has no share; where more than one in a hundred has none, the interval says nothing.
    """
    if best.mean() <= base.mean():
        return None, None, None
    drawn = np.random.default_rng(seed).integers(len(found), size=(_SAMPLES, len(found)))
    room = (best - base)[drawn].mean(axis=1)
    taken = (found - base)[drawn].mean(axis=1)
    value = 100 * float((found - base).mean() / (best - base).mean())
    if (room <= 0).mean() > 0.01:
        return value, None, None
    low, high = np.quantile(100 * taken[room > 0] / room[room > 0], [0.025, 0.975])
    return value, float(low), float(high)


def figures_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the headline figures: the official F1 of each row, and what it gains with the interval's lower end."""
    figures: dict[str, float] = {}
    for row in rows:
        name = f"{row['model']}_{row['prompt']}_k{row['k']}_{row['source']}"
        figures[f"{name}_{_MAIN}"] = row[_MAIN]
        if f"{_MAIN}_gain" in row:
            figures |= {f"{name}_gain": row[f"{_MAIN}_gain"], f"{name}_gain_ci_low": row[f"{_MAIN}_low"]}
    return figures


def page(rows: Sequence[Mapping[str, Any]], title: str, about: Sequence[str], base: str) -> str:
    """Return a Markdown page: what was run, and a table for each model, instruction and number of memories."""
    lines = [f"# {title}", "", *about]
    for cell in dict.fromkeys((row["model"], row["prompt"], row["k"]) for row in rows):
        chosen = [row for row in rows if (row["model"], row["prompt"], row["k"]) == cell]
        first = chosen[0]
        count = f"{first['questions']} of {first['drawn']} drawn questions"
        lines += ["", f"## {cell[0]}, {cell[2]} memories, prompt *{cell[1]}*: {count}", ""]
        gain = f"gain over {base} (95%)"
        heads = ["shown", "evidence among it", "official F1", gain, "share of the room (95%)", "official BLEU-1", gain]
        heads += ["mem0 F1", "mem0 BLEU-1", "memoryos F1", "memoryos BLEU-1"]
        lines += [_line(heads), _line(["---"] * len(heads))]
        for row in chosen:
            cells = [row["source"], _number(row["recall"]), _number(row["official_f1"]), _gain(row, "official_f1")]
            cells += [_room_text(row), _number(row["official_bleu1"]), _gain(row, "official_bleu1")]
            cells += [_number(row[name]) for name in SCORES[2:]]
            lines.append(_line(cells))
    return "\n".join([*lines, ""])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _gain(row: Mapping[str, Any], score: str) -> str:
    if f"{score}_gain" not in row:
        return ""
    return f"{row[f'{score}_gain']:+.1f} ({row[f'{score}_low']:.1f} to {row[f'{score}_high']:.1f})"


def _room_text(row: Mapping[str, Any]) -> str:
    if row.get("room") is None:
        return ""
    interval = f" ({row['room_low']:.0f} to {row['room_high']:.0f})" if row["room_low"] is not None else ""
    return f"{row['room']:.0f}%{interval}"
