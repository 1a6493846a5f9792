"""The gate's report as a page: verdict, scopes before and after, queries that gained and lost, scores, tiers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hins_memory.common.html import Html, Section, Series, bar_chart, histogram, table, write_page
from hins_memory.encoders.manifest import Description
from hins_memory.errors import GateError
from hins_memory.evaluation.evaluate import TIE_DECIMALS
from hins_memory.evaluation.gate import K
from hins_memory.types import Tier

if TYPE_CHECKING:
    from hins_memory.encoders.encoder import Encoder
    from hins_memory.evaluation.evaluate import EvalQuery, EvalSet
    from hins_memory.evaluation.gate import GateReport, GateRule

__all__ = ["write_gate_page"]

_SHOWN_QUERIES = 10
_SHOWN_RANKS = 5
_SHOWN_SCOPES = 200
_BARS = 10
# A memory may be 100 kB long; its beginning shows which one it is.
_MAX_CHARS = 300


def write_gate_page(path: Path, report: GateReport, candidate: Encoder, incumbent: Encoder, about: Description) -> None:
    """Write the page of a verdict: one file without scripts, which fetches nothing.

    It holds texts of the log. `Pipeline.gate` notes where it is written, so that a purge can name it.

    Args:
        path: the file; one that is there is replaced.
        report: the verdict.
        candidate: the encoder that was tested.
        incumbent: the encoder that serves.
        about: the candidate's manifest, for what it was trained on.

    Raises:
        GateError: the file cannot be written.
    """
    changes = report.evidence.candidate.ndcg[K] - report.evidence.incumbent.ndcg[K]
    order = [int(row) for row in np.argsort(-changes, kind="stable")]
    best = [row for row in order if changes[row] > 0][:_SHOWN_QUERIES]
    worst = [row for row in order[::-1] if changes[row] < 0][:_SHOWN_QUERIES]
    pages = _Rankings(report, candidate, incumbent)
    sections = (
        Section("Verdict", _verdict(report)),
        Section("Held-out traffic, by scope", _scopes(report)),
        Section("Memory skills", _skills(report)),
        Section("Scores", _scores(report)),
        Section("What it was trained on", _tiers(about)),
        Section("Queries that gained most", pages.of(best) or ("No query gained.",)),
        Section("Queries that lost most", pages.of(worst) or ("No query lost.",)),
    )
    try:
        write_page(path, f"{report.candidate} against {report.incumbent}", sections)
    except OSError as error:
        raise GateError(f"{path} cannot be written: {error}.", "Name another file with --report.") from error


def _verdict(report: GateReport) -> tuple[str, ...]:
    k = K
    verdict = "lets pass" if report.passed else "refuses"
    figures = [
        (what, name, 100 * table_["incumbent"][name], 100 * table_["candidate"][name])
        for what, table_ in (
            ("held-out traffic, encoder alone", report.held_out),
            ("held-out traffic, as served", report.served),
            ("general retrieval", report.general),
        )
        for name in (f"ndcg@{k}", "recall@1", f"recall@{k}", "mrr")
        if table_
    ]
    return (
        f"The gate {verdict} {report.candidate} against {report.incumbent}.",
        table(("rule", "verdict", "why"), [(rule.name, _word(rule), rule.sentence) for rule in report.rules]),
        table(("", "metric", "before", "after", "change"), [(*row, row[3] - row[2]) for row in figures]),
    )


def _word(rule: GateRule) -> str:
    if rule.value is None:
        return "skipped"
    return "passed" if rule.passed else "FAILED"


def _scopes(report: GateReport) -> tuple[str, ...]:
    name = f"ndcg@{K}"
    counts = Counter(report.evidence.candidate.groups)
    before, after = report.groups["incumbent"], report.groups["candidate"]
    largest = [scope for scope, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    rows = [
        (scope, counts[scope], 100 * before[scope][name], 100 * after[scope][name]) for scope in largest[:_SHOWN_SCOPES]
    ]
    shown = rows[:_BARS]
    chart = bar_chart(
        f"nDCG@{K} of the scopes with the most queries",
        [_cut(row[0], 14) for row in shown],
        [Series("before", [row[2] for row in shown]), Series("after", [row[3] for row in shown])],
        "points",
    )
    columns = ("scope", "queries", "before", "after", "change")
    listed = table(columns, [(*row, row[3] - row[2]) for row in rows])
    if len(largest) > _SHOWN_SCOPES:
        return (chart, listed, f"And {len(largest) - _SHOWN_SCOPES} scopes with fewer queries.")
    return (chart, listed)


def _skills(report: GateReport) -> tuple[str, ...]:
    """Return every kind of question, what it was and what it is now."""
    if not report.skills:
        return ("They were not measured.",)
    name = f"ndcg@{K}"
    before, after = report.skills["incumbent"], report.skills["candidate"]
    rows = [(skill, 100 * before[skill][name], 100 * after[skill][name]) for skill in before]
    chart = bar_chart(
        f"nDCG@{K} of the packaged kinds of questions",
        [skill for skill, _, _ in rows],
        [Series("before", [row[1] for row in rows]), Series("after", [row[2] for row in rows])],
        "points",
    )
    return (chart, table(("skill", "before", "after", "change"), [(*row, row[2] - row[1]) for row in rows]))


def _scores(report: GateReport) -> tuple[str, ...]:
    old, new = (
        [float(score) for score in scores.top_scores[:, :K].ravel() if np.isfinite(score)]
        for scores in (report.evidence.incumbent, report.evidence.candidate)
    )
    title = f"Cosines of the first {K} results of each held-out query"
    cutoffs = [rule for rule in report.rules if rule.name.startswith("cutoff_")]
    chart = histogram(title, [Series("before", old), Series("after", new)], "cosine")
    return (chart, *(rule.sentence for rule in cutoffs))


def _tiers(about: Description) -> tuple[str, ...]:
    tiers = about.data.tiers
    ratio = {} if about.ratio is None else {tier.value: about.ratio.share(tier) for tier in Tier}
    total = sum(tiers.values())
    if not total:
        return ("The manifest does not say.",)
    names = sorted({*tiers, *(name for name in ("hard", "medium", "easy") if name in ratio)})
    used = [100 * tiers.get(name, 0) / total for name in names]
    bars = [Series("negatives in training", used)]
    if ratio:
        bars.append(Series("measured in the log", [100 * float(ratio.get(name, 0.0)) for name in names]))
    counts = table(
        ("tier", "negatives", "%"), [(name, tiers.get(name, 0), share) for name, share in zip(names, used, strict=True)]
    )
    return (f"{about.data.examples} examples.", bar_chart("Tier mix", names, bars, "%"), counts)


class _Rankings:
    """What the two encoders return for single queries; the vectors of a set are reused for its next query."""

    def __init__(self, report: GateReport, candidate: Encoder, incumbent: Encoder) -> None:
        self._report = report
        self._encoders = (incumbent, candidate)
        # By index, because a set may be read from disk when it is used.
        sets = enumerate(report.evidence.held_out)
        self._queries = [(index, query) for index, one in sets for query in one.queries]
        self._vectors: dict[tuple[int, int], Any] = {}

    def of(self, rows: Sequence[int]) -> tuple[str, ...]:
        return tuple(part for row in rows for part in self._query(row))

    def _query(self, row: int) -> tuple[str, str]:
        index, query = self._queries[row]
        one = self._report.evidence.held_out[index]
        k = K
        scores = [scores.ndcg[k][row] for scores in (self._report.evidence.incumbent, self._report.evidence.candidate)]
        ranked = [self._ranked(side, index, query) for side in range(2)]
        cells = [
            (rank + 1, *(_cell(one, query, side[rank]) if rank < len(side) else "" for side in ranked))
            for rank in range(max(map(len, ranked)))
        ]
        heading = f"“{_cut(query.text, _MAX_CHARS)}”" + (f" ({query.group})" if query.group else "")
        title = f"{heading}: nDCG@{k} {100 * scores[0]:.1f} before, {100 * scores[1]:.1f} after"
        return (title, table(("rank", "before", "after"), cells))

    def _ranked(self, encoder: int, index: int, query: EvalQuery) -> list[tuple[str, float]]:
        """Return the first documents and their cosines, in the order in which the evaluation ranks them."""
        one = self._report.evidence.held_out[index]
        names = sorted(one.documents)
        key = (encoder, index)
        if key not in self._vectors:
            self._vectors[key] = self._encoders[encoder].encode([one.documents[name] for name in names])
        query_vector = self._encoders[encoder].encode([query.text], role="query")[0]
        cosines = np.round(self._vectors[key] @ query_vector, TIE_DECIMALS)
        order = np.argsort(-cosines, kind="stable")[:_SHOWN_RANKS]
        return [(names[row], float(cosines[row])) for row in order]


def _cell(one: EvalSet, query: EvalQuery, found: tuple[str, float]) -> str | Html:
    name, score = found
    sign = "✓ " if name in query.relevant else ""
    return f"{sign}{_cut(one.documents[name], _MAX_CHARS)} [{score:.2f}]"


def _cut(text: str, chars: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= chars else text[: chars - 1] + "…"
