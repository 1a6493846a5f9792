"""The commands of the loop: status, mine, train, gate, swap, rollback, run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from hins_memory.cli.options import AgentConfig, AgentName, opened_agent, settings_of
from hins_memory.cli.screen import Bars, Result, command, table
from hins_memory.cli.tables import gate_parts, mine_parts, status_parts, swap_parts
from hins_memory.errors import ConfigError, GateError

if TYPE_CHECKING:
    from hins_memory.pipeline import LoopSettings
    from hins_memory.train.settings import Mode

__all__ = ["gate", "mine", "rollback", "run", "status", "swap", "train"]

_Base = Annotated[str, typer.Option("--base", metavar="DIR_OR_NAME", help="The encoder that training starts from.")]
_ModeName = Annotated[str, typer.Option("--mode", help="Which weights are trained: lora (a low-rank update) or full.")]
_Seed = Annotated[int, typer.Option("--seed", help="Seed of everything that is sampled.")]
_Version = Annotated[
    str | None, typer.Argument(metavar="[VERSION]", help="The encoder version; the newest if left out.")
]

_NEGATIVES = 3


def _loop(base: str = "stock", seed: int = 0, negatives: int = _NEGATIVES, **train: Any) -> LoopSettings:
    from hins_memory.mine import MineSettings
    from hins_memory.pipeline import LoopSettings
    from hins_memory.train.settings import TrainSettings

    return LoopSettings(
        mine=MineSettings(seed=seed, negatives=negatives),
        train=TrainSettings(seed=seed, negatives=negatives, **train),
        base=base,
    )


@command
def status(context: typer.Context) -> Result:
    """Show what the log holds, which encoder versions there are, and which one serves."""
    from hins_memory.pipeline import Pipeline

    found = Pipeline(settings_of(context)).status()
    return Result(found.to_dict(), status_parts(found))


@command
def mine(
    context: typer.Context,
    negatives: Annotated[int, typer.Option("--negatives", help="Negatives a query.")] = _NEGATIVES,
    seed: _Seed = 0,
    report: Annotated[
        bool, typer.Option("--report", help="Print the whole report: a bar for each tier, and examples to read.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Write the examples to a Parquet file as well.")
    ] = None,
    memory_budget: Annotated[
        int | None,
        typer.Option("--memory-budget", metavar="BYTES", help="What the miner may hold beside an owner's log."),
    ] = None,
) -> Result:
    """Show what training would learn from: examples, tiers, ratio, what was skipped and why. Changes no version."""
    from rich.text import Text

    from hins_memory.mine import render
    from hins_memory.pipeline import Pipeline

    loop = _loop(seed=seed, negatives=negatives)
    if memory_budget is not None:
        loop = replace(loop, mine=replace(loop.mine, memory_budget=memory_budget))
    with Bars() as bars:
        bars.waiting("loading the encoder")
        pipeline = Pipeline(settings_of(context), loop=loop, progress=bars)
        found = pipeline.mine_to(output) if output else pipeline.mine().report
    return Result(found.to_dict(), (Text(render(found)),) if report else mine_parts(found))


@command
def train(
    context: typer.Context,
    base: _Base = "stock",
    mode: _ModeName = "lora",
    epochs: Annotated[
        float | None, typer.Option("--epochs", help="Passes over the examples; 2 if left out, more if they are few.")
    ] = None,
    negatives: Annotated[int, typer.Option("--negatives", help="Negatives a query.")] = _NEGATIVES,
    seed: _Seed = 0,
) -> Result:
    """Train a new encoder version from the log. Nothing serves with it before `hins swap`."""
    from hins_memory.pipeline import Pipeline

    settings = settings_of(context)
    # Whoever says how many passes gets them, however few steps they are.
    passes = {} if epochs is None else {"epochs": epochs, "min_steps": 1}
    loop = _loop(base, seed, negatives, mode=cast("Mode", mode), **passes)
    with Bars() as bars:
        bars.waiting("loading the encoder")
        version = Pipeline(settings, loop=loop, progress=bars).train()
    seconds = version.manifest.get("metrics", {}).get("train_seconds", 0.0)
    examples = version.manifest.get("data", {}).get("examples", 0)
    data = {"version": version.id, "path": version.path, "manifest": version.manifest}
    return Result(
        data,
        (
            f"Trained {version.id} from {examples} examples in {seconds:.0f} seconds.",
            "Next: `hins gate` judges it, `hins swap` makes an agent serve with it.",
        ),
    )


@command
def gate(context: typer.Context, version: _Version = None) -> Result:
    """Judge a version against the encoder that serves, on conversations it never saw. Exit status 4 if refused."""
    from hins_memory.pipeline import Pipeline

    settings = settings_of(context)
    with Bars() as bars:
        bars.waiting("loading the encoders")
        report = Pipeline(settings, progress=bars).gate(version)
    return Result(report.to_dict(), gate_parts(report), 0 if report.passed else GateError.exit_code)


@command
def swap(
    context: typer.Context,
    version: _Version = None,
    agent: AgentName = "mem0",
    agent_config: AgentConfig = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would take.")] = False,
    retire: Annotated[bool, typer.Option("--retire", help="Only drop the index that a rollback needs.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Swap although the gate refuses; this is recorded.")] = False,
) -> Result:
    """Gate a version, re-embed the agent's store beside the live one, and flip. The old index stays for rollback."""
    from hins_memory.pipeline import Pipeline

    settings = settings_of(context)
    if dry_run + retire + force > 1 or (retire and version):
        raise ConfigError("--dry-run, --retire and --force exclude each other.", "--retire takes no version either.")
    with Bars() as bars, opened_agent(settings, agent, agent_config, bars) as memory:
        pipeline = Pipeline(settings, memory, progress=bars)
        if retire:
            dropped = pipeline.retire()
            text = f"Dropped {', '.join(dropped)}." if dropped else "There was no old index to drop."
            return Result({"dropped": dropped}, (text,))
        if dry_run:
            plan = pipeline.plan(version)
            return Result({"dry_run": True, **plan.to_dict()}, swap_parts(plan))
        report = pipeline.swap(version, force=force)
    return Result(report.to_dict(), swap_parts(report))


@command
def rollback(context: typer.Context, agent: AgentName = "mem0", agent_config: AgentConfig = None) -> Result:
    """Return an agent to the encoder and the index before the last swap, with the writes that came since."""
    from hins_memory.pipeline import Pipeline

    settings = settings_of(context)
    with Bars() as bars, opened_agent(settings, agent, agent_config, bars) as memory:
        report = Pipeline(settings, memory, progress=bars).rollback()
    return Result(report.to_dict(), swap_parts(report))


@command
def run(
    context: typer.Context,
    agent: AgentName = "mem0",
    agent_config: AgentConfig = None,
    base: _Base = "stock",
    mode: _ModeName = "lora",
    seed: _Seed = 0,
) -> Result:
    """Run the whole loop once: mine, train, gate, and swap if the gate lets the version pass (else exit status 4)."""
    from hins_memory.pipeline import Pipeline

    settings, loop = settings_of(context), _loop(base, seed, mode=cast("Mode", mode))
    with Bars() as bars, opened_agent(settings, agent, agent_config, bars) as memory:
        report = Pipeline(settings, memory, loop=loop, progress=bars).run()
    parts = [table(("trained", "examples"), [(report.version, report.mine["examples"])]), *gate_parts(report.gate)]
    if report.swap is not None:
        parts += swap_parts(report.swap)
    return Result(report.to_dict(), tuple(parts), 0 if report.swapped else GateError.exit_code)
