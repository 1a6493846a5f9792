"""`hins evaluate`: scores encoders on the user's own labelled questions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hins_memory.cli.options import settings_of
from hins_memory.cli.screen import Bars, Part, Result, command, table
from hins_memory.cli.tables import METRICS
from hins_memory.encoders.starter import default_base

if TYPE_CHECKING:
    from hins_memory.loop.labelled import Comparison

__all__ = ["evaluate"]


@command
def evaluate(
    context: typer.Context,
    questions: Annotated[
        Path, typer.Option("--questions", metavar="FILE", help="Labelled questions (.csv, .jsonl, .parquet).")
    ],
    encoder: Annotated[
        list[str] | None,
        typer.Option(
            "--encoder",
            metavar="NAME",
            help="A version, stock, starter or a folder; several are compared with the first. Default: stock, and what "
            "serves.",
        ),
    ] = None,
) -> Result:
    """Score encoders on labelled questions of your own: nDCG@10, recall and the interval of the difference."""
    from hins_memory.loop.labelled import compare_encoders
    from hins_memory.registry.loader import EncoderSource
    from hins_memory.registry.registry import Registry

    source = EncoderSource(Registry(settings_of(context)))
    current = source.registry.current()
    names = encoder or ["stock", current.id if current else default_base()]
    places = {name: source.source(name) or name for name in dict.fromkeys(names)}
    with Bars() as bars:
        bars.waiting("encoding")
        comparison = compare_encoders(questions, places)
    return Result(comparison.to_dict(), _parts(comparison))


def _parts(comparison: Comparison) -> tuple[Part, ...]:
    rows = []
    for name, scores in comparison.scores.items():
        means, gain = scores.mean(), comparison.gains.get(name)
        change = f"{100 * gain.difference:+.1f} ({100 * gain.low:+.1f} to {100 * gain.high:+.1f})" if gain else ""
        rows.append((name, *(100 * means[metric] for metric in METRICS), change))
    count = len(next(iter(comparison.scores.values())).mrr)
    heads = ("encoder", *METRICS, "change of ndcg@10 (95%)")
    return (f"{count} questions; figures in percent.", table(heads, rows))
