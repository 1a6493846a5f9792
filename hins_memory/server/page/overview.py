"""The sections of the overview, from the log and the registry: figures, tables and charts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from hins_memory.common.html import Html, Series, line_chart, paragraph, table, templates
from hins_memory.common.printable import moment
from hins_memory.database.engine import open_database
from hins_memory.log.copies import known_copies
from hins_memory.loop.quality import promise_of
from hins_memory.loop.reports import read_status
from hins_memory.server.page.traffic import mean_by_day, read_traffic

if TYPE_CHECKING:
    from hins_memory.config import Settings
    from hins_memory.encoders.manifest import Manifest
    from hins_memory.log.capture import CaptureStats
    from hins_memory.loop.quality import Quality
    from hins_memory.loop.reports import Status
    from hins_memory.registry.registry import Registry

__all__ = ["Part", "gate_reports", "overview", "rendered", "version_sections"]

_PACKAGE = "hins_memory.server.page"
_VERSIONS = 20
_CURVES = ("loss", "learning_rate", "gradient_norm")
_REPORT_TITLE = re.compile(r"<title>(\S+) against ")


@dataclass(frozen=True, slots=True)
class Part:
    """A section of a page: the name of its anchor, its heading, and what is in it."""

    name: str
    title: str
    content: tuple[Html, ...]


def rendered(template: str, **values: object) -> Html:
    """Return one of the page's templates, filled in."""
    return Html(templates(_PACKAGE).get_template(template).render(values))


def overview(settings: Settings, registry: Registry, stats: CaptureStats, show_text: bool) -> list[Part]:
    """Return the sections that only show something.

    Args:
        settings: the project.
        registry: its versions.
        stats: how the server's own queue is doing.
        show_text: whether reports with texts of the log are linked.

    Raises:
        HinsError: the log or the registry cannot be read.
    """
    engine = open_database(settings.database_url)
    status = read_status(settings, engine, registry)
    traffic = read_traffic(engine)
    quality = status.quality
    rows = list(zip(traffic.days, traffic.searches, traffic.answers, traffic.feedback, strict=True))
    lines = [
        Series(name, counts, traffic.days)
        for name, counts in (
            ("searches", traffic.searches),
            ("answers", traffic.answers),
            ("feedback", traffic.feedback),
        )
    ]
    recorded = [row for row in rows if any(row[1:])]
    columns = ("day", "searches", "answers", "feedback")
    return [
        Part("serving", "What serves", _serving(status, registry)),
        Part("quality", "How well it serves", _quality(quality)),
        Part(
            "traffic",
            "Searches and outcomes",
            (
                line_chart("Events of each of the last 30 days", lines, "days before today", "events"),
                rendered("details.html", summary="The same as a table", content=table(columns, recorded)),
            ),
        ),
        Part("versions", "Versions and verdicts of the gate", _versions(settings, registry, status, show_text)),
        Part("queue", "Recording", _recording(status, stats)),
    ]


def _serving(status: Status, registry: Registry) -> tuple[Html, ...]:
    indexes = [(one.agent_key, one.version, one.state) for one in registry.indexes()]
    swaps = [(one.agent_key, one.step, one.done, one.records) for one in registry.swap_progress()]
    log = status.log
    counts = [
        ("version that serves", status.current or "none was promoted yet; new stores begin with the starter"),
        ("searches", log.retrievals),
        ("answers and feedback", log.answers + log.feedback),
        ("memories", log.memories),
        ("owners and conversations", f"{log.owners} and {log.conversations}"),
    ]
    found = [table(("", "now"), counts)]
    if indexes:
        found.append(table(("agent", "version", "its index"), indexes))
    if swaps:
        found.append(table(("agent", "its swap does", "records done", "of"), swaps))
    if status.scoped:
        towers = [(number, one.version or "the common one") for number, one in enumerate(status.scoped, 1)]
        found.append(table(("scope", "served by"), towers))
    return tuple(found)


def _quality(quality: Quality | None) -> tuple[Html, ...]:
    if quality is None:
        return (
            paragraph(
                "Not judged yet: the server does so when there are new outcomes, and so does hins status --judge."
            ),
        )
    names = list(dict.fromkeys(one.version for one in quality.judged))
    lines = []
    for name in names:
        values = [(one.time, 100 * one.ndcg) for one in quality.judged if one.version == name]
        days, means = mean_by_day(values, quality.made)
        lines.append(Series(name or "not said", means, days))
    by_version = [
        (name or "not said", len(found), 100 * sum(found) / len(found))
        for name in names
        if (found := [one.ndcg for one in quality.judged if one.version == name])
    ]
    how = (
        f"Judged {moment(quality.made, seconds=False)} (UTC) from feedback and answers, with the results as they were "
        f"returned; {quality.without_outcome} more of the latest searches have outcomes that point to no memory surely."
    )
    return (
        rendered("verdict.html", bad=quality.below, text=quality.sentence),
        line_chart("nDCG@10 of judged searches, mean of each day", lines, "days before it was judged", "points"),
        table(("version", "judged searches", "nDCG@10"), by_version),
        paragraph(how),
    )


def _versions(settings: Settings, registry: Registry, status: Status, show_text: bool) -> tuple[Html, ...]:
    versions = registry.versions()[::-1]
    if not versions:
        return (paragraph("There is no version yet: hins run trains one."),)
    reports = gate_reports(settings) if show_text else {}
    rows = []
    for version in versions[:_VERSIONS]:
        about = version.manifest
        promise, _ = promise_of(about.gates)
        pages = [
            rendered("link.html", to=f"/reports/{key}", text="report")
            for key, (_, of) in reports.items()
            if of == version.id
        ]
        rows.append(
            (
                rendered("link.html", to=f"/versions/{version.id}", text=version.id),
                moment(about.created, seconds=False),
                f"{about.mode or '–'}{', for one scope' if about.scope else ''}",
                verdict(about),
                None if promise is None else 100 * promise,
                pages[-1] if pages else "–",
                "serves" if version.id == status.current else "",
            )
        )
    columns = ("version", "made (UTC)", "mode", "gate", "nDCG@10 there", "report", "")
    found = [table(columns, rows)]
    if len(versions) > _VERSIONS:
        found.append(paragraph(f"And {len(versions) - _VERSIONS} older ones: hins encoders list."))
    if not show_text:
        found.append(paragraph("Reports of the gate hold queries and memories: hins serve --show-text links them."))
    return tuple(found)


def verdict(about: Manifest) -> str:
    """Return the latest verdict on a version in a few words."""
    if not about.gates:
        return "not judged"
    latest = about.gates[-1]
    gain = "" if latest.gain is None else f", {100 * latest.gain:+.1f} points"
    if latest.passed is None:
        return "forced past the gate"
    return f"{'passed' if latest.passed else 'refused'}{gain}"


def _recording(status: Status, stats: CaptureStats) -> tuple[Html, ...]:
    rows = [
        ("events recorded by this server", stats.recorded),
        ("waiting to be written", stats.waiting),
        ("bytes waiting", stats.waiting_bytes),
        ("lost by this server", stats.dropped),
        ("among them, hooks that failed or hung", stats.redaction_failed + stats.redaction_hung),
        ("lost by all processes within a month", sum(one.dropped for one in status.losses)),
        ("the log can be written", "no: events are kept and tried again" if stats.failing else "yes"),
    ]
    return (table(("", "now"), rows),)


def version_sections(id: str, about: Manifest) -> list[Part]:
    """Return what is known of a version: how it was made, its verdicts, and the curves of its training. No texts."""
    made = [
        ("made (UTC)", moment(about.created, seconds=False)),
        ("base", about.base),
        ("mode", about.mode),
        ("for", (about.scope and "one scope") or "everyone"),
        ("searches the vectors of", about.document_space or id),
        ("examples", about.data.examples),
        ("training", f"{about.metrics.train_seconds:.0f} seconds"),
    ]
    gates = [
        (
            moment(one.time, seconds=False),
            "forced" if one.passed is None else "passed" if one.passed else "refused",
            one.incumbent,
            None if one.gain is None else 100 * one.gain,
            None if one.ndcg is None else 100 * one.ndcg,
            ", ".join(one.failures) or "–",
        )
        for one in about.gates
    ]
    promoted = [
        (moment(one.time, seconds=False), one.agent or "–", "by force" if one.forced else "")
        for one in about.promotions
    ]
    columns = ("judged (UTC)", "verdict", "against", "gain in points", "nDCG@10", "rules that failed")
    curves = [
        line_chart(name.replace("_", " "), [Series(name, values)], "step")
        for name in _CURVES
        if (values := getattr(about.run.curves, name))
    ]
    verdicts = table(columns, gates) if gates else paragraph("It was not judged yet.")
    return [
        Part("made", "How it was made", (table(("", ""), made),)),
        Part("gate", "Verdicts of the gate", (verdicts,)),
        Part(
            "served",
            "Since when it serves",
            (table(("since (UTC)", "agent", ""), promoted) if promoted else paragraph("It has not served yet."),),
        ),
        *([Part("curves", "Its training", tuple(curves))] if curves else []),
    ]


def gate_reports(settings: Settings) -> dict[str, tuple[Path, str]]:
    """Return the gate's reports that are on disk, by a name for their address: the file, and of which version it is."""
    found: dict[str, tuple[Path, str]] = {}
    for copy in known_copies(settings.root):
        path = Path(copy.path)
        if copy.kind != "hins gate --report" or path.suffix != ".html":
            continue
        try:
            with path.open(encoding="utf-8") as stream:
                title = _REPORT_TITLE.search(stream.read(4096))
        except (OSError, UnicodeDecodeError):
            continue
        if title:
            found[sha256(copy.path.encode("utf-8", "surrogatepass")).hexdigest()[:16]] = path, title[1]
    return found
