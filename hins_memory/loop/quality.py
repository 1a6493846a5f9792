"""How well recent searches went, as their outcomes say, beside what the gate measured of the version that serves."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from hins_memory.database.engine import database_errors, open_database, reading
from hins_memory.database.tables import answers, feedback, memories, retrievals
from hins_memory.errors import LogError
from hins_memory.evaluation.gate import K
from hins_memory.log.purge import purge_count
from hins_memory.log.reader import LogReader
from hins_memory.loop.settings import LoopSettings
from hins_memory.types import Scope, now

if TYPE_CHECKING:
    from hins_memory.config import Settings
    from hins_memory.encoders.encoder import Encoder
    from hins_memory.encoders.manifest import GateVerdict
    from hins_memory.mining.storage.evidence import OwnerEvidence
    from hins_memory.registry.registry import Registry
    from hins_memory.types import ScopeLog

__all__ = [
    "MIN_SEARCHES",
    "JudgedSearch",
    "Quality",
    "judge_project",
    "judge_searches",
    "promise_of",
    "quality_file",
    "read_quality",
]

#: With fewer judged searches of the serving version nothing is said about it.
MIN_SEARCHES = 50
#: How many of the latest searches with an outcome are judged.
SEARCHES = 400
# Memories that are embedded for it; further owners are left out.
_MOST_MEMORIES = 20_000
_NAME = "quality.json"


@dataclass(frozen=True, slots=True)
class JudgedSearch:
    """A search whose relevant memories its outcomes tell: when it was, what served it, and its nDCG@10."""

    time: float
    version: str
    ndcg: float


@dataclass(frozen=True, slots=True)
class Quality:
    """What the latest searches' outcomes say. It holds no texts and no names.

    Attributes:
        made: when it was judged, in seconds since the Unix epoch (UTC).
        version: the version that serves.
        mean: nDCG@10 of its judged searches as they were returned, 0 to 1; None with fewer than `MIN_SEARCHES`.
        low: lower end of the 95% interval of the mean, a percentile bootstrap over searches.
        high: upper end of it.
        searches: how many of the judged searches it served.
        promise: nDCG@10 that the gate measured of it on held-out searches; None where that is not recorded.
        promise_queries: on how many.
        without_outcome: searches among the latest whose outcomes point to no memory surely enough.
        judged: all judged searches, whatever served them, oldest first.
    """

    made: float
    version: str
    mean: float | None
    low: float | None
    high: float | None
    searches: int
    promise: float | None
    promise_queries: int
    without_outcome: int
    judged: tuple[JudgedSearch, ...]

    @property
    def below(self) -> bool:
        """Whether the whole interval is below what the gate measured."""
        return self.high is not None and self.promise is not None and self.high < self.promise

    @property
    def sentence(self) -> str:
        """It in words."""
        serving = self.version or "what serves"
        if self.mean is None or self.low is None or self.high is None:
            return f"{self.searches} judged searches of {serving}; {MIN_SEARCHES} are needed to say how well it serves."
        found = (
            f"nDCG@{K} of {self.searches} searches of {serving} is {100 * self.mean:.1f}, "
            f"{100 * self.low:.1f} to {100 * self.high:.1f} (95%)"
        )
        if self.promise is None:
            return f"{found}; the gate's measurement of it is not recorded: run `hins gate`."
        what = "is below" if self.below else "is not below"
        return f"{found}, which {what} the {100 * self.promise:.1f} that the gate measured."

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-able values, with the verdict and without the single searches."""
        values = asdict(self)
        del values["judged"]
        return {**values, "below": self.below, "sentence": self.sentence}


def promise_of(gates: Sequence[GateVerdict]) -> tuple[float | None, int]:
    """Return nDCG@10 of the latest verdict that has it, and on how many queries; (None, 0) where none has."""
    return next(((one.ndcg, one.queries) for one in reversed(gates) if one.ndcg is not None), (None, 0))


def judge_searches(
    engine: sa.Engine, encoder: Encoder, loop: LoopSettings, searches: int = SEARCHES
) -> tuple[list[JudgedSearch], int]:
    """Judge the latest searches that have an outcome, by the same evidence that the gate is made of.

    Which memories are relevant is mined from feedback and answers, those that the search should have found included. A
    search is judged by its results as they were returned. Synthetic searches are left out.

    Args:
        engine: the database of the log.
        encoder: compares answers with memories.
        loop: the miner's settings decide what counts as a positive.
        searches: how many of the latest.

    Returns:
        The judged searches, oldest first, and how many of the latest could not be judged.

    Raises:
        LogError: the log cannot be read.
    """
    from hins_memory.mining.storage.evidence import collect

    wanted = _latest(engine, searches)
    owners = _within_bounds(engine, list(dict.fromkeys(owner for _, owner in wanted)))
    ids = {retrieval for retrieval, _ in wanted}
    judged: list[JudgedSearch] = []
    for log in LogReader(engine).scope_logs(owners):
        judged += _judged(log, collect(log, encoder, loop.mine, None), ids)
    return sorted(judged, key=lambda one: one.time), len(wanted) - len(judged)


def _latest(engine: sa.Engine, searches: int) -> list[tuple[str, Scope]]:
    outcome = sa.or_(
        *(sa.exists().where(table.c.retrieval_id == retrievals.c.id) for table in (answers, feedback)),
    )
    query = sa.select(retrievals.c.id, retrievals.c.owner).where(outcome)
    with database_errors(engine.url), reading(engine).connect() as connection:
        rows = connection.execute(query.order_by(retrievals.c.seq.desc()).limit(searches)).all()
    found = [(row.id, Scope.from_key(row.owner)) for row in rows]
    return [(retrieval, owner) for retrieval, owner in found if not owner.synthetic]


def _within_bounds(engine: sa.Engine, owners: Sequence[Scope]) -> list[Scope]:
    """Return the first owners that together have few enough memories, at least one."""
    kept: list[Scope] = []
    total = 0
    with database_errors(engine.url), reading(engine).connect() as connection:
        for owner in owners:
            query = sa.select(sa.func.count()).select_from(memories).where(memories.c.owner == owner.key)
            total += connection.execute(query).scalar_one()
            if kept and total > _MOST_MEMORIES:
                break
            kept.append(owner)
    return kept


def _judged(log: ScopeLog, evidence: OwnerEvidence, ids: set[str]) -> list[JudgedSearch]:
    from hins_memory.evaluation.metrics import ndcg
    from hins_memory.mining.owner.text import clean, normalized

    if evidence.owner is None:
        return []
    relevant = {normalized(query.query): set(query.positives) for query in evidence.queries if query.positives}
    found: list[JudgedSearch] = []
    for search in log.retrievals:
        rows = relevant.get(normalized(clean(search.query)))
        if search.id not in ids or not rows:
            continue
        # Two ids may stand for one memory; the first counts.
        ranked = dict.fromkeys(evidence.owner.rows.get(result.memory_id, -1) for result in search.results)
        gains = [float(row in rows) for row in ranked][:K] or [0.0]
        value = float(ndcg([gains], [[1.0] * len(rows)], K)[0])
        found.append(JudgedSearch(search.time, search.encoder_version, value))
    return found


def judge_project(settings: Settings, registry: Registry, encoder: Encoder, searches: int = SEARCHES) -> Quality:
    """Judge a project's latest searches, and keep what was found for `read_quality`.

    Args:
        settings: the project.
        registry: its versions.
        encoder: the one that serves; it compares answers with memories, and its version's searches are summed up.
        searches: how many of the latest.

    Raises:
        LogError: the log cannot be read, or the project's folder cannot be written.
    """
    engine = open_database(settings.database_url)
    before = purge_count(engine)
    judged, without = judge_searches(engine, encoder, LoopSettings.from_file(settings.file()), searches)
    gates = [version.manifest.gates for version in registry.versions() if version.id == encoder.version]
    promise, queries = promise_of(gates[0] if gates else ())
    mean, low, high, count = _interval([one.ndcg for one in judged if one.version == encoder.version])
    found = Quality(now(), encoder.version, mean, low, high, count, promise, queries, without, tuple(judged))
    if purge_count(engine) == before:
        _keep(settings.root / _NAME, json.dumps(asdict(found)))
    return found


def _keep(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        # Where the log is in another place, there may be no folder yet.
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise LogError(f"{path} cannot be written: {error}.", "Make the project's folder writable.") from error


def _interval(values: Sequence[float]) -> tuple[float | None, float | None, float | None, int]:
    from hins_memory.evaluation.metrics import paired_bootstrap

    if len(values) < MIN_SEARCHES:
        return None, None, None, len(values)
    result = paired_bootstrap(values, [0.0] * len(values))
    return result.difference, result.low, result.high, len(values)


def quality_file(root: Path) -> Path:
    """Return the file that a project's last judgement is kept in; it holds the times of searches."""
    return root / _NAME


def read_quality(root: Path) -> Quality | None:
    """Return what was found last in a project's folder; None where nothing was, or it cannot be read."""
    try:
        values: Mapping[str, Any] = json.loads((root / _NAME).read_text(encoding="utf-8"))
        judged = tuple(JudgedSearch(**one) for one in values["judged"])
        return Quality(**{**values, "judged": judged})
    except (OSError, ValueError, TypeError, KeyError):
        return None
