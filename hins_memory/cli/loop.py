"""The commands of the loop: status, mine, train, gate, swap, rollback, run."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hins_memory.cli.options import (
    AgentConfig,
    AgentName,
    EncodeRate,
    OwnerName,
    ScaleAt,
    TenantName,
    WriteRate,
    check_alone,
    opened_agent,
    scale_of,
    scope_of,
    settings_of,
)
from hins_memory.cli.scheduled import WhenOption, one_round
from hins_memory.cli.screen import Bars, Result, command
from hins_memory.cli.tables import gate_parts, mine_parts, run_parts, status_parts, swap_parts, swap_takes
from hins_memory.errors import ConfigError, GateError, NotEnoughDataError

if TYPE_CHECKING:
    from hins_memory.config import Settings
    from hins_memory.loop.pipeline import Pipeline
    from hins_memory.loop.settings import LoopSettings
    from hins_memory.types import Scope

__all__ = ["gate", "mine", "rollback", "run", "status", "swap", "train"]

_Base = Annotated[
    str | None,
    typer.Option(
        "--base",
        metavar="DIR_OR_NAME",
        help="The encoder that training starts from (default: what serves, or what that was trained from).",
    ),
]
_ModeName = Annotated[
    str | None,
    typer.Option(
        "--mode",
        help="What is trained: auto (default: tower where it can be, else lora), tower (queries against the stored "
        "vectors, which stay), lora (a low-rank update; the swap embeds everything again), full, or query (a map).",
    ),
]
_Negatives = Annotated[int | None, typer.Option("--negatives", metavar="N", help="Negatives a query; default 3.")]
_Patience = Annotated[
    int | None,
    typer.Option(
        "--patience",
        metavar="N",
        help="Stop when held-out traffic got no better N times in a row, and keep the best weights.",
    ),
]
_Seed = Annotated[
    int | None, typer.Option("--seed", metavar="N", help="Seed of everything that is sampled; default 0.")
]
_Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="ADDRESS",
        help="Let a Ray cluster work: auto, HOST:PORT, ray://HOST:PORT, or local for this machine's cores.",
    ),
]
_Workers = Annotated[
    int | None,
    typer.Option("--workers", metavar="N", help="How many of the cluster's workers train together; default 1."),
]
_Version = Annotated[
    str | None, typer.Argument(metavar="[VERSION]", help="The encoder version; the newest if left out.")
]


def _loop(
    settings: Settings,
    base: str | None = None,
    seed: int | None = None,
    mine: Any = None,
    train: Any = None,
    deep: str | None = None,
    ray: str | None = None,
) -> LoopSettings:
    """Return the settings of the stages: the options that were given, else the project's file, else the defaults."""
    from hins_memory.loop.settings import LoopSettings

    def given(values: dict[str, Any] | None) -> dict[str, Any]:
        return {name: value for name, value in (values or {}).items() if value is not None}

    return LoopSettings.from_file(
        settings.file(), base=base, seed=seed, deep=deep, ray=ray, mine=given(mine), train=given(train)
    )


def _pipeline(scope: Scope | None, *arguments: Any, **options: Any) -> Pipeline:
    """Return the stages for everyone, or for one scope."""
    from hins_memory.loop.pipeline import Pipeline
    from hins_memory.loop.scoped import ScopedPipeline

    return Pipeline(*arguments, **options) if scope is None else ScopedPipeline(scope, *arguments, **options)


@command
def status(
    context: typer.Context,
    judge: Annotated[
        bool,
        typer.Option("--judge", help="Judge the latest searches by their outcomes first; this loads the encoder."),
    ] = False,
) -> Result:
    """Show what the log holds, which encoder versions there are, which one serves, and how well, if that was judged."""
    from hins_memory.loop.pipeline import Pipeline

    pipeline = Pipeline(settings_of(context))
    if judge:
        with Bars() as bars:
            bars.waiting("judging the latest searches")
            pipeline.judge()
    found = pipeline.status()
    return Result(found.to_dict(), status_parts(found))


@command
def mine(
    context: typer.Context,
    negatives: _Negatives = None,
    seed: _Seed = None,
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
    ray: _Ray = None,
) -> Result:
    """Show what training would learn from: examples, tiers, ratio, what was skipped and why. Changes no version."""
    from hins_memory.loop.pipeline import Pipeline
    from hins_memory.mining import render

    settings = settings_of(context)
    loop = _loop(settings, seed=seed, mine={"negatives": negatives, "memory_budget": memory_budget}, ray=ray)
    with Bars() as bars:
        bars.waiting("loading the encoder")
        pipeline = Pipeline(settings, loop=loop, progress=bars)
        found = pipeline.mine_to(output) if output else pipeline.mine().report
    return Result(found.to_dict(), (render(found),) if report else mine_parts(found))


@command
def train(
    context: typer.Context,
    base: _Base = None,
    mode: _ModeName = None,
    epochs: Annotated[
        float | None, typer.Option("--epochs", help="Passes over the examples; 2 if left out, more if they are few.")
    ] = None,
    negatives: _Negatives = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", metavar="N", help="Queries a step, over all processes; default 32.")
    ] = None,
    patience: _Patience = None,
    seed: _Seed = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the last interrupted training, with its own settings.")
    ] = False,
    labelled: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="Learn from labelled questions (.csv, .jsonl, .parquet) instead."),
    ] = None,
    owner: OwnerName = None,
    tenant: TenantName = None,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="FILE.html", help="Write a page with the curves of the run.")
    ] = None,
    ray: _Ray = None,
    workers: _Workers = None,
) -> Result:
    """Train a new encoder version from the log. Nothing serves with it before `hins swap`.

    With --owner or --tenant it is a tower from that scope's log alone, for its searches alone.

    Several processes: `torchrun --nproc-per-node 2 -m hins_memory train`, `accelerate launch -m hins_memory train`, or
    `hins train --ray ADDRESS --workers 2`.
    """
    from hins_memory.loop.labelled import train_version
    from hins_memory.training.fit.processes import is_main
    from hins_memory.training.report import write_run_report

    settings, scope = settings_of(context), scope_of(owner, tenant)
    if resume:
        names = ("base", "mode", "epochs", "negatives", "batch_size", "patience", "seed", "labelled", "owner", "tenant")
        check_alone(context, names)
    _check_scoped(scope, mode, other=labelled is not None)
    # An explicit number of passes is used, however few steps that makes.
    given: dict[str, Any] = {"epochs": epochs, "min_steps": None if epochs is None else 1, "batch_size": batch_size}
    given |= {"mode": mode, "patience": patience}
    loop = _loop(settings, base, seed, {"negatives": negatives}, given, ray=ray)
    loop = _with_workers(loop, workers, labelled=labelled is not None, asked=bool(ray))
    with Bars() as bars:
        bars.waiting("loading the encoder")
        if labelled is not None:
            version = train_version(labelled, settings, loop, bars)
        else:
            version = _pipeline(scope, settings, loop=loop, progress=bars).train(resume=resume)
    if not is_main():
        return Result(lines=())
    if report is not None:
        write_run_report(report, version.id, version.manifest)
    seconds = version.manifest.metrics.train_seconds
    examples = version.manifest.data.examples
    data = {"version": version.id, "path": version.path, "manifest": version.manifest.to_dict()}
    whose = f" for {version.manifest.scope}" if version.manifest.scope else ""
    return Result(
        data,
        (
            f"Trained {version.id}{whose} from {examples} examples in {seconds:.0f} seconds (mode "
            f"{version.manifest.mode}).",
            "Next: `hins gate` judges it, `hins swap` makes an agent serve with it"
            f"{swap_takes(version.manifest.mode)}.",
        ),
    )


def _check_scoped(scope: Scope | None, mode: str | None, *, other: bool) -> None:
    """Refuse what needs other vectors, or another log, than those of a scope; `other` is any option that does so."""
    if scope is not None and (other or mode not in (None, "auto", "tower")):
        raise ConfigError(
            "What serves one scope is a tower, from that scope's log: its memories keep their vectors.",
            "Leave out --mode, --from and --deep, or --owner and --tenant.",
        )


def _with_workers(loop: LoopSettings, workers: int | None, *, labelled: bool, asked: bool) -> LoopSettings:
    """Return the settings with a number of workers; refuse workers where no cluster trains."""
    if labelled and (asked or workers is not None):
        raise ConfigError("Labelled questions (--from) are trained on in this process.", "Leave out --ray, --workers.")
    if workers is None:
        return loop
    if not loop.ray:
        raise ConfigError(
            "--workers are those of a Ray cluster.", "Name it with --ray ('local' is this machine), or use torchrun."
        )
    return replace(loop, workers=workers)


@command
def gate(
    context: typer.Context,
    version: _Version = None,
    page: Annotated[
        Path | None, typer.Option("--report", metavar="FILE.html", help="Write the verdict as a page, with queries.")
    ] = None,
    agent: Annotated[
        str | None,
        typer.Option("--agent", help="Judge as this framework serves: by its thresholds, and through its search."),
    ] = None,
    agent_config: AgentConfig = None,
    owner: OwnerName = None,
    tenant: TenantName = None,
    ray: _Ray = None,
) -> Result:
    """Judge a version against the encoder that serves, on conversations it never saw. Exit status 4 if refused."""
    settings, scope = settings_of(context), scope_of(owner, tenant)
    if agent_config is not None and agent is None:
        raise ConfigError("--agent-config needs --agent.", "Name the framework, e.g. --agent mem0.")
    with Bars() as bars, contextlib.ExitStack() as stack:
        memory = stack.enter_context(opened_agent(settings, agent, agent_config, bars)) if agent else None
        bars.waiting("loading the encoders")
        loop = _loop(settings, ray=ray)
        report = _pipeline(scope, settings, memory, loop=loop, progress=bars).gate(version, page=page)
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
    owner: OwnerName = None,
    tenant: TenantName = None,
    at: ScaleAt = None,
    encode_rate: EncodeRate = None,
    write_rate: WriteRate = None,
    ray: _Ray = None,
) -> Result:
    """Gate a version, re-embed the agent's store beside the live one, and flip. The old index stays for rollback.

    A version whose documents have the vectors that are stored (mode tower) changes queries alone: nothing is embedded.

    With --owner or --tenant only that scope's searches change, and no vector does; --retire takes its tower from it.
    """
    settings, scope = settings_of(context), scope_of(owner, tenant)
    if dry_run + retire + force > 1 or (retire and version):
        raise ConfigError("--dry-run, --retire and --force exclude each other.", "--retire takes no version either.")
    scale = scale_of(at, encode_rate, write_rate, dry_run)
    if scope is not None and retire:
        retired = _pipeline(scope, settings).retire()
        text = f"{scope.key} is served by the common encoder. `hins encoders prune` removes {', '.join(retired)}."
        return Result({"retired": retired}, (text,))
    with Bars() as bars, opened_agent(settings, agent, agent_config, bars) as memory:
        pipeline = _pipeline(scope, settings, memory, loop=_loop(settings, ray=ray), progress=bars)
        if retire:
            dropped = pipeline.retire()
            text = f"Dropped {', '.join(dropped)}." if dropped else "There was no old index to drop."
            return Result({"dropped": dropped}, (text,))
        if dry_run:
            plan = pipeline.plan(version, scale)
            return Result({"dry_run": True, **plan.to_dict()}, swap_parts(plan))
        report = pipeline.swap(version, force=force)
    return Result(report.to_dict(), swap_parts(report))


@command
def rollback(
    context: typer.Context,
    agent: AgentName = "mem0",
    agent_config: AgentConfig = None,
    owner: OwnerName = None,
    tenant: TenantName = None,
) -> Result:
    """Return an agent to the encoder and the index before the last swap, with the writes that came since.

    With --owner or --tenant, return that scope alone to what served it before.
    """
    from hins_memory.loop.pipeline import Pipeline

    settings, scope = settings_of(context), scope_of(owner, tenant)
    if scope is not None:
        report = _pipeline(scope, settings).rollback()
        return Result(report.to_dict(), swap_parts(report))
    with Bars() as bars, opened_agent(settings, agent, agent_config, bars) as memory:
        report = Pipeline(settings, memory, progress=bars).rollback()
    return Result(report.to_dict(), swap_parts(report))


@command
def run(
    context: typer.Context,
    when: WhenOption = None,
    agent: AgentName = "mem0",
    agent_config: AgentConfig = None,
    base: _Base = None,
    mode: _ModeName = None,
    seed: _Seed = None,
    deep: Annotated[
        str | None,
        typer.Option(
            "--deep",
            help="After a round that re-embeds nothing: advise (say whether a round that does would gain enough; "
            "default), auto (take it if so), or never.",
        ),
    ] = None,
    owner: OwnerName = None,
    tenant: TenantName = None,
) -> Result:
    """Run the whole loop once: mine, train, gate, and swap if the gate lets the version pass (else exit status 4).

    By default a tower for the queries is trained: the swap touches no stored vector. Then it says what a round that
    embeds everything again would gain and cost, and how to take it. With --owner or --tenant the tower is from that
    scope's log alone, for its searches alone, and --when counts its outcomes.
    """
    settings, scope = settings_of(context), scope_of(owner, tenant)
    _check_scoped(scope, mode, other=deep not in (None, "never"))
    loop = _loop(settings, base, seed, train={"mode": mode}, deep=deep)
    with one_round(settings, when, agent, scope) as decision:
        if decision is not None and not decision.due:
            return Result({"ran": False, "schedule": decision.to_dict()}, (f"No new round: {decision.why}",))
        try:
            with Bars() as bars, opened_agent(settings, agent, agent_config, bars) as memory:
                report = _pipeline(scope, settings, memory, loop=loop, progress=bars).run()
        except NotEnoughDataError as error:
            if decision is None:
                raise
            # A schedule asks again later; that it is too early is not an error.
            data = {"ran": False, "schedule": decision.to_dict(), "problem": error.problem}
            return Result(data, (f"No new round: {error}",))
    parts = [*run_parts(report)]
    if decision is not None:
        parts.insert(0, f"A new round was due: {decision.why}")
    schedule = {} if decision is None else {"schedule": decision.to_dict()}
    data = {"ran": True, **schedule, **report.to_dict()}
    return Result(data, tuple(parts), 0 if report.swapped else GateError.exit_code)
