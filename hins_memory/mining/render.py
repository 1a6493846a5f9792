"""The miner's report as text: what was kept, a bar for each tier, what was skipped, and examples to read."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from hins_memory.common.printable import one_line
from hins_memory.mining.negatives.tiers import PAPER_TIERS
from hins_memory.mining.report import MineReport

__all__ = ["render"]

_BAR = 30
_RULES = {
    "easy": "another conversation",
    "medium": "same conversation, another topic",
    "hard": "same conversation and topic, another speaker",
}


def render(report: MineReport, width: int = 100) -> str:
    """Return the report as plain text.

    Args:
        report: what the miner did.
        width: columns; the samples' texts are cut to it.
    """
    parts = [_summary(report), *_ratio(report), *_negatives(report), *_owners(report), *_skipped(report)]
    parts += [*map(one_line, report.notes), *_samples(report, width)]
    return "\n".join(parts).rstrip() + "\n"


def _summary(report: MineReport) -> str:
    lines = [
        f"{report.examples} examples from {report.queries} queries over {report.memories} memories in "
        f"{report.conversations} conversations ({report.topics} topics) of {report.owners} owners."
    ]
    for source, count in report.positives.items():
        lines.append(f"  {count} positives from {source}, mean confidence {report.mean_confidence[source]:.2f}")
    return "\n".join(lines)


def _bar(share: float) -> str:
    return "#" * round(share * _BAR)


def _ratio(report: MineReport) -> Iterator[str]:
    ratio = report.ratio
    if ratio is None:
        return
    counted = f", from {ratio.count} ranked memories" if ratio.count else ""
    yield f"\nRatio of the tiers ({ratio.source}{counted}), with its 95% interval"
    for tier in PAPER_TIERS:
        share, limits = ratio.share(tier), report.ratio_interval.get(tier.value)
        interval = f"{100 * limits[0]:5.1f} to {100 * limits[1]:5.1f}" if limits else "given"
        yield f"  {tier.value:<8}{100 * share:6.1f} %  {_bar(share):<{_BAR}}  {interval}"


def _negatives(report: MineReport) -> Iterator[str]:
    total = sum(report.negatives.values())
    if not total:
        return
    yield f"\nNegatives dealt: {total}"
    for name, count in report.negatives.items():
        yield f"  {name:<8}{100 * count / total:6.1f} %  {_bar(count / total):<{_BAR}}  {count}"


def _owners(report: MineReport) -> Iterator[str]:
    if len(report.owner_ratios) < 2:
        return
    yield "\nRatio of each owner, in % (easy, medium, hard)"
    for key, ratio in list(report.owner_ratios.items())[:10]:
        shares = ", ".join(f"{100 * ratio.share(tier):.0f}" for tier in PAPER_TIERS)
        yield f"  {one_line(key) or '(no scope)'}: {shares} ({ratio.source}, {ratio.count} counted)"
    if (more := report.owners - 10) > 0:
        yield f"  ... and {more} more owners"


def _skipped(report: MineReport) -> Iterator[str]:
    if report.skipped or report.deleted:
        yield "\nSkipped"
    for reason, count in sorted(report.skipped.items(), key=lambda item: -item[1]):
        yield f"  {count:>8}  {one_line(reason)}"
    if report.deleted:
        yield f"  {report.deleted:>8}  memories deleted from the agent"


def _samples(report: MineReport, width: int) -> Iterator[str]:
    for name, samples in report.samples.items():
        if not samples:
            continue
        yield f"\nNegatives of tier {name}: {_RULES.get(name, '')}"
        for sample in samples:
            texts = (("query", sample.query), ("positive", sample.positive), ("negative", sample.negative))
            for label, text in texts:
                words = one_line(" ".join(text.split()))
                yield f"  {label:<9} {textwrap.shorten(words, max(20, width - 12), placeholder=' ...')}"
            yield ""
