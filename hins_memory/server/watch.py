"""The drift watch: judges recent searches by their outcomes when there are new ones, warns, and may roll back."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

import sqlalchemy as sa
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from hins_memory.database.engine import database_errors, open_database, reading
from hins_memory.database.tables import answers, feedback, retrievals
from hins_memory.errors import HinsError
from hins_memory.log.counts import count_rows
from hins_memory.log.losses import read_losses
from hins_memory.loop.quality import MIN_SEARCHES, judge_project, read_quality
from hins_memory.registry.loader import EncoderSource

if TYPE_CHECKING:
    from hins_memory.config import Settings
    from hins_memory.loop.quality import Quality
    from hins_memory.registry.registry import Registry
    from hins_memory.server.page.operator import Operator
    from hins_memory.server.state import ServerState

__all__ = ["LogCollector", "Watch", "background"]

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 60.0
#: New outcomes after which recent searches are judged again. Fewer looks mean fewer false alarms.
NEW_OUTCOMES = 50


class Watch:
    """Judges when there are enough new outcomes, or another version serves.

    Args:
        settings: the project.
        registry: its versions.
        operator: what rolls back.
        auto_rollback: whether it does, once for each version that falls below what the gate measured.
    """

    def __init__(self, settings: Settings, registry: Registry, operator: Operator, auto_rollback: bool) -> None:
        self._settings = settings
        self._source = EncoderSource(registry)
        self._registry = registry
        self._operator = operator
        self._auto_rollback = auto_rollback
        self._seen = 0
        self._version = ""
        self._rolled_back: set[str] = set()

    def look(self) -> Quality | None:
        """Judge if it is time to; return what was found, None if it is not.

        Raises:
            HinsError: the log cannot be read, or the encoder cannot be loaded.
        """
        version, outcomes = self._source.serving_version(), self._outcomes()
        if outcomes < self._seen:
            # A purge or a retention removed the latest ones, and their numbers are used again.
            self._seen = 0
        new = outcomes - self._seen if version == self._version else outcomes
        if not version or outcomes < MIN_SEARCHES or new < NEW_OUTCOMES:
            return None
        found = judge_project(self._settings, self._registry, self._source.by_version(version))
        self._seen, self._version = outcomes, version
        if found.below:
            logger.warning("%s", found.sentence)
            if self._auto_rollback and version not in self._rolled_back and self._operator.rollback(found.sentence):
                self._rolled_back.add(version)
        return found

    def _outcomes(self) -> int:
        engine = open_database(self._settings.database_url)
        with database_errors(engine.url), reading(engine).connect() as connection:
            newest = (sa.select(sa.func.coalesce(sa.func.max(table.c.seq), 0)) for table in (answers, feedback))
            return sum(int(connection.execute(query).scalar_one()) for query in newest)


class LogCollector(Collector):
    """Metrics of the project's log, swaps and verdicts, and of the last judgement, read when they are asked for."""

    def __init__(self, state: ServerState) -> None:
        self._state = state

    def describe(self) -> Iterator[Metric]:
        """Name nothing beforehand, so that registering reads nothing."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        settings = self._state.settings
        try:
            engine = open_database(settings.database_url)
            searches, given, opinions = _counts(engine)
            lost = sum(loss.dropped for loss in read_losses(engine))
            registered = list(_of_registry(self._state.registry))
        except HinsError as error:
            logger.warning("The log could not be counted: %s", error)
            return
        yield GaugeMetricFamily("hins_log_searches", "Searches in the log.", searches)
        outcomes = GaugeMetricFamily("hins_log_outcomes", "Outcomes in the log.", labels=["kind"])
        outcomes.add_metric(["answer"], given)
        outcomes.add_metric(["feedback"], opinions)
        yield outcomes
        yield GaugeMetricFamily("hins_log_dropped", "Events that captures lost within a month.", lost)
        stats = self._state.recording.stats()
        yield GaugeMetricFamily("hins_capture_waiting", "Events that wait for this server's writer.", stats.waiting)
        yield GaugeMetricFamily("hins_capture_dropped", "Events that this server lost.", stats.dropped)
        yield from registered
        quality = read_quality(settings.root)
        if quality is not None and quality.mean is not None:
            yield from _of_quality(quality)


def _counts(engine: sa.Engine) -> list[int]:
    """Return how many searches, answers and feedbacks the log holds, about, where counting would take long."""
    with database_errors(engine.url), reading(engine).connect() as connection:
        return [count_rows(connection, table) for table in (retrievals, answers, feedback)]


def _of_registry(registry: Registry) -> Iterator[Metric]:
    """Yield how stores stand between versions, and the verdict on the version that serves."""
    indexes = GaugeMetricFamily(
        "hins_indexes", "Generations of stores, by version and state.", labels=["version", "state"]
    )
    for (version, state), count in Counter((one.version, one.state) for one in registry.indexes()).items():
        indexes.add_metric([version, state], count)
    yield indexes
    swaps = GaugeMetricFamily(
        "hins_swap_progress", "Share of a running swap's records that its step has done.", labels=["version", "step"]
    )
    for swap in registry.swap_progress():
        swaps.add_metric([swap.version, swap.step], swap.done / max(swap.records, 1))
    yield swaps
    current = registry.current_id()
    gates = registry.get(current).manifest.gates if current else ()
    if gates:
        passed = GaugeMetricFamily("hins_gate_passed", "1 if the gate let pass what serves.", labels=["version"])
        passed.add_metric([current], float(gates[-1].passed is True))
        yield passed


def _of_quality(quality: Quality) -> Iterator[Metric]:
    values = {"mean": quality.mean, "low": quality.low, "high": quality.high, "promise": quality.promise}
    ndcg = GaugeMetricFamily(
        "hins_quality_ndcg", "nDCG@10 of recent searches, by outcomes.", labels=["version", "value"]
    )
    for name, value in values.items():
        if value is not None:
            ndcg.add_metric([quality.version, name], value)
    yield ndcg
    below = GaugeMetricFamily("hins_quality_below", "1 if the interval is below the gate's figure.", labels=["version"])
    below.add_metric([quality.version], float(quality.below))
    yield below


async def background(state: ServerState) -> None:
    """Look every minute, as long as the server runs."""
    watch = Watch(state.settings, state.registry, state.page.operator, state.options.page.auto_rollback)
    while True:
        try:
            await asyncio.to_thread(watch.look)
        except Exception:
            logger.exception("Recent searches could not be judged")
        await asyncio.sleep(_LOOK_SECONDS)
