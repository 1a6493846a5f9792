"""The text output of each stage's report: a few sentences and plain tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hins_memory.cli.screen import Part, table
from hins_memory.common.printable import moment
from hins_memory.encoders.starter import default_base
from hins_memory.training.settings import DOCUMENTS_STAY

if TYPE_CHECKING:
    from hins_memory.evaluation.gate import GateReport, GateRule
    from hins_memory.log.losses import CaptureLoss
    from hins_memory.loop.deep import DeepAdvice
    from hins_memory.loop.pipeline import RunReport, Status
    from hins_memory.mining import MineReport
    from hins_memory.registry.registry import ScopedVersion
    from hins_memory.swapping import SwapPlan, SwapProjection, SwapReport

__all__ = ["METRICS", "gate_parts", "mine_parts", "run_parts", "status_parts", "swap_parts", "swap_takes"]

#: The metrics of an evaluation that are printed, in this order.
METRICS = ("ndcg@10", "recall@1", "recall@10", "mrr")


def status_parts(status: Status) -> tuple[Part, ...]:
    """Return where a project stands."""
    log = status.log
    about = "about " if log.estimated else ""
    rows = [
        ("project", status.project),
        ("folder", status.root),
        ("database", status.database),
        ("settings", status.settings_file or "no hins.toml: the defaults"),
        *(
            (name, f"{about}{getattr(log, name)}")
            for name in ("turns", "memories", "retrievals", "answers", "feedback")
        ),
        ("owners / conversations", f"{about}{log.owners} / {about}{log.conversations}"),
        ("encoder versions", ", ".join(status.versions) or "none yet"),
        ("serving", status.current or f"no version yet; new stores begin with {default_base()!r}"),
    ]
    rows += [(f"serving {one.scope}", _scoped(one)) for one in status.scoped]
    rows += [(f"unreadable: {name}", reason) for name, reason in status.unreadable.items()]
    rows += [(f"lost by process {loss.process}", _lost(loss)) for loss in status.losses]
    if status.quality is not None:
        rows.append((f"judged {moment(status.quality.made, seconds=False)}", status.quality.sentence))
    parts: list[Part] = [table(("", ""), rows)]
    if not log.retrievals:
        parts.append('Nothing was searched yet: use Memory(embedder="hins"), or attach(memory), and it is recorded.')
    elif not log.answers + log.feedback:
        parts.append("No outcome is known yet: record answers with answered() and opinions with feedback().")
    return tuple(parts)


def _scoped(one: ScopedVersion) -> str:
    if one.serves or not one.version:
        return one.version or "the common one"
    return f"the common one, because {one.version} searches other vectors: train it again"


def _lost(loss: CaptureLoss) -> str:
    reasons = [
        (loss.pushed_out, "turns, memories or outcomes without room in the queue"),
        (loss.redaction, "whose hins_redact hook failed or hung"),
    ]
    told = ", ".join(f"{count} {reason}" for count, reason in reasons if count)
    restarts = f"; its writer was restarted {loss.restarts} times" if loss.restarts else ""
    return f"{loss.dropped} events{f' ({told})' if told else ''}{restarts}; last {moment(loss.changed)}"


def mine_parts(report: MineReport) -> tuple[Part, ...]:
    """Return what the miner found."""
    parts: list[Part] = [
        f"{report.examples} examples from {report.queries} queries over {report.memories} memories in "
        f"{report.conversations} conversations ({report.topics} topics) of {report.owners} owners."
    ]
    if report.positives:
        rows = [(source, count, f"{report.mean_confidence[source]:.2f}") for source, count in report.positives.items()]
        parts.append(table(("positives from", "examples", "mean confidence"), rows))
    if report.ratio is not None:
        tiers = [
            (name, count, 100 * getattr(report.ratio, name), _interval(report.ratio_interval.get(name)))
            for name, count in report.negatives.items()
        ]
        parts.append(table(("tier", "negatives", f"ratio % ({report.ratio.source})", "95% interval"), tiers))
    if report.skipped:
        parts.append(table(("skipped", "count"), report.skipped.items()))
    return (*parts, *report.notes)


def _interval(limits: tuple[float, float] | None) -> str | None:
    return f"{100 * limits[0]:.1f} to {100 * limits[1]:.1f}" if limits else None


def gate_parts(report: GateReport) -> tuple[Part, ...]:
    """Return the gate's verdict, with every rule and both encoders' figures in percent."""
    verdict = "lets pass" if report.passed else "refuses"
    figures = []
    for what, values in (("", report.held_out), ("as served, ", report.served)):
        if values:
            before, after = values["incumbent"], values["candidate"]
            figures += [
                (f"{what}{name}", 100 * before[name], 100 * after[name], 100 * (after[name] - before[name]))
                for name in METRICS
                if name in before
            ]
    return (
        f"The gate {verdict} {report.candidate} against {report.incumbent}.",
        table(("held-out traffic", "before", "after", "change"), figures),
        table(("rule", "verdict", "why"), [(rule.name, _verdict(rule), rule.sentence) for rule in report.rules]),
    )


def _verdict(rule: GateRule) -> str:
    if rule.value is None:
        return "skipped"
    return "passed" if rule.passed else "FAILED"


def swap_parts(report: SwapPlan | SwapReport) -> tuple[Part, ...]:
    """Return what a swap, a rollback or a dry run did or would do."""
    from hins_memory.swapping import SwapPlan

    if isinstance(report, SwapPlan):
        rows = [(one.kind, one.name, one.records, one.seconds, one.disk_bytes / 2**20) for one in report.indexes]
        larger = () if report.projection is None else _projection_parts(report.projection)
        return (
            f"Dry run: {report.agent_key} would go from {report.from_version or 'its own encoder'} to "
            f"{report.to_version}: {report.records} records, about {report.seconds:.0f} seconds and "
            f"{report.disk_bytes / 2**20:.1f} MiB. Nothing was changed.",
            table(("index", "name", "records", "seconds", "MiB"), rows),
            *larger,
        )
    if not report.changed:
        return (f"{report.agent_key} is served by {report.version} already; nothing was to be done.",)
    rebuilt = [
        (one.kind, one.name, one.records, one.written, one.reused, one.vectors_checked) for one in report.indexes
    ]
    return (
        f"{report.agent_key} is served by {report.version} now, before by {report.previous or 'its own encoder'} "
        f"({report.seconds:.1f} seconds). `hins rollback` returns to that.",
        table(("index", "name", "records", "encoded", "reused", "vectors checked"), rebuilt)
        if rebuilt
        else "No stored vector was touched: the two make the same vectors of memories, and queries alone changed.",
    )


def _projection_parts(plan: SwapProjection) -> tuple[Part, ...]:
    """Return what a swap would take at another size."""
    rows = [
        (
            *(one.name, f"{one.records:.3g}", one.encode_rate, one.encode_hours),
            *(one.write_rate, one.write_hours, one.disk_bytes / 2**30, one.traffic_bytes / 2**30),
        )
        for one in plan.indexes
    ]
    names = ("index", "records", "encoded/s", "hours", "written/s", "hours", "GiB of rows", "GiB to and from the store")
    rates = f"Measured here: {', '.join(plan.measured)}." if plan.measured else "Both rates were given."
    return (
        f"At {plan.memories:.3g}: {plan.encode_hours:.1f} hours of one device that encodes, {plan.write_hours:.1f} of "
        f"one writer; a day with {plan.devices_for_a_day} such devices and {plan.writers_for_a_day} writers. {rates}",
        table(names, rows),
        f"Assumed: {' '.join(plan.assumed)}",
    )


def swap_takes(mode: str) -> str:
    """Return what a swap to a version of a mode means for the stored vectors, to follow a sentence."""
    return "; no stored vector changes" if mode in DOCUMENTS_STAY else "; the swap embeds all memories again"


def run_parts(report: RunReport) -> tuple[Part, ...]:
    """Return what a round did, what it advises, and the deep round that followed."""
    parts: list[Part] = [
        table(("trained", "mode", "examples"), [(report.version, report.mode, report.mine["examples"])])
    ]
    parts += gate_parts(report.gate)
    if report.swap is not None:
        parts += swap_parts(report.swap)
    if report.advice is not None:
        parts.append(_advice(report.advice, taken=report.deep is not None))
    if report.deep is not None:
        parts += run_parts(report.deep)
    return tuple(parts)


def _advice(advice: DeepAdvice, taken: bool) -> str:
    training = "" if advice.train_seconds is None else f"about {advice.train_seconds / 3600:.1f} hours of training, "
    takes = (
        f"It takes {training}{advice.records} records embedded again in about {advice.embed_seconds / 3600:.1f} hours "
        f"while the agent serves, and {advice.disk_bytes / 2**20:.0f} MiB of disk."
    )
    how = "Take it" if advice.advised else "It could be taken all the same"
    return f"{advice.why} {takes} {'It was taken:' if taken else f'{how} with `hins run --mode lora`.'}"
