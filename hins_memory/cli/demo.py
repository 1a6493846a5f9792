"""`hins demo`: the whole loop on the packaged conversations, in a folder of its own."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hins_memory.cli.options import Options
from hins_memory.cli.screen import Bars, Part, Result, command, note, table
from hins_memory.cli.tables import gate_parts, swap_parts
from hins_memory.errors import GateError

if TYPE_CHECKING:
    from hins_memory.demo import DemoReport

__all__ = ["demo"]


@command
def demo(
    context: typer.Context,
    seed: Annotated[int, typer.Option("--seed", help="Seed of everything that is sampled.")] = 0,
) -> Result:
    """Play the packaged conversations through a real Mem0, run the loop, swap live, and show before and after.

    A temporary folder is used and removed, unless --home names one. Needs no network and no API key.
    """
    from hins_memory.demo import run_demo

    options = context.find_object(Options) or Options()
    with tempfile.TemporaryDirectory(prefix="hins-demo-") as scratch:
        # Mem0 makes a folder of its own when it is imported; the demo leaves nothing behind.
        os.environ.setdefault("MEM0_DIR", str(Path(scratch) / "mem0"))
        with Bars() as bars:
            report = run_demo(options.home or Path(scratch), seed=seed, progress=_Steps(bars))
    return Result(report.to_dict(), _parts(report), 0 if report.run.swapped else GateError.exit_code)


class _Steps:
    """The progress bars, and a line on stderr whenever a stage begins: the demo takes minutes."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._seen: set[str] = set()

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage not in self._seen:
            self._seen.add(stage)
            note(f"> {stage}")
        self._bars(stage, done, total)


def _parts(report: DemoReport) -> tuple[Part, ...]:
    count = report.conversations
    parts: list[Part] = [
        f"{count} conversations, {report.memories} memories and {report.questions} questions went through Mem0; "
        f"{report.run.mine['examples']} training examples were mined from them. "
        f"All of it took {report.seconds:.0f} seconds.",
        *gate_parts(report.run.gate),
    ]
    if report.after is None:
        return (*parts, "The gate refused the new encoder, so nothing was swapped: the agent serves as before.")
    if report.run.swap is not None:
        parts += swap_parts(report.run.swap)
    rows = [
        (name, 100 * report.before[name], 100 * value, 100 * (value - report.before[name]))
        for name, value in report.after.items()
    ]
    held_out = ", ".join(report.held_out)
    low, high = report.gain_interval
    parts += [
        table(
            ("in %, Mem0's own search", "before", "after", "change"),
            rows,
            title=f"{report.held_out_questions} questions about conversations never trained on ({held_out})",
        ),
        f"95% interval of the change of nDCG@10: {100 * low:+.1f} to {100 * high:+.1f} points.",
    ]
    parts.append(
        f"Evidence is ranked first for {report.risen} more of them, and no longer for {report.fallen}. Of the former:"
    )
    for example in report.examples:
        pairs = [
            ("question", example.question),
            ("answer", example.answer),
            ("first before", example.first_before),
            (f"first after (it was {_place(example.rank_before)})", example.first_after),
        ]
        parts.append(table(("", ""), pairs))
    return tuple(parts)


def _place(rank: int) -> str:
    return f"number {rank}" if rank else "not found"
