"""The dry run of a swap: how many records, how long, how much disk; nothing is changed."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from hins_memory.encoders.encoder import Encoder
from hins_memory.swapping.projection import Scale, SwapProjection, project_swap
from hins_memory.swapping.query_only import shares_vectors

if TYPE_CHECKING:
    from hins_memory.plugins.protocols import Agent, Index
    from hins_memory.registry.registry import Registry

__all__ = ["IndexPlan", "SwapPlan", "plan_swap"]

# Texts that the dry run encodes to measure the speed.
_PLAN_SAMPLE = 64


@dataclass(frozen=True, slots=True)
class IndexPlan:
    """What a swap would do to one index. `seconds` and `disk_bytes` are estimates from a sample of its records."""

    kind: str
    name: str
    records: int
    seconds: float
    disk_bytes: int


@dataclass(frozen=True, slots=True)
class SwapPlan:
    """A dry run: nothing was changed.

    Attributes:
        agent_key: which agent.
        from_version: the encoder version that serves.
        to_version: the one that would serve after the swap.
        indexes: one plan for each index; none where no vector has to be computed again.
        projection: what it would take at another size, if that was asked for and any vector has to be computed.
    """

    agent_key: str
    from_version: str
    to_version: str
    indexes: tuple[IndexPlan, ...]
    projection: SwapProjection | None = None

    @property
    def records(self) -> int:
        """How many records would be re-embedded."""
        return sum(index.records for index in self.indexes)

    @property
    def seconds(self) -> float:
        """About how long encoding them takes on this machine."""
        return sum(index.seconds for index in self.indexes)

    @property
    def disk_bytes(self) -> int:
        """About how much the new indexes take beside the old ones, which are kept."""
        return sum(index.disk_bytes for index in self.indexes)

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as JSON-able values, with its totals."""
        totals: dict[str, Any] = {"records": self.records, "seconds": self.seconds, "disk_bytes": self.disk_bytes}
        if self.projection is not None:
            totals["projection"] = self.projection.to_dict()
        return {**asdict(self), **totals}


def plan_swap(agent: Agent, encoder: Encoder, registry: Registry | None = None, scale: Scale | None = None) -> SwapPlan:
    """Return what swapping `agent` to `encoder` would take; changes nothing.

    Args:
        agent: the live agent.
        encoder: what it would serve with.
        registry: where the swap would be recorded; tells whether any vector would have to be computed again.
        scale: another size to plan for too; see `project_swap` for what is measured.

    Raises:
        AgentError: the agent's indexes cannot be read.
    """
    if registry is not None and shares_vectors(registry.live_index(agent.store_id), encoder.version, registry):
        return SwapPlan(agent.store_id, agent.encoder_version, encoder.version, ())
    plans = tuple(_plan_index(index, encoder) for index in agent.live_indexes())
    projection = None if scale is None else project_swap(agent, encoder, scale)
    return SwapPlan(agent.store_id, agent.encoder_version, encoder.version, plans, projection)


def _plan_index(index: Index, encoder: Encoder) -> IndexPlan:
    count = index.count()
    sample = next(index.pages(_PLAN_SAMPLE), [])
    if not sample:
        return IndexPlan(index.kind, index.name, count, 0.0, 0)
    # Without the cache, so that planning twice does not measure the cache.
    uncached = Encoder(encoder.model, encoder.version, cache_size=0)
    texts = [record.text for record in sample]
    uncached.encode(texts[:4])  # the first call is slower than the rest will be
    started = time.perf_counter()
    uncached.encode(texts)
    seconds = time.perf_counter() - started
    payload = sum(len(json.dumps(dict(record.payload), default=repr).encode()) for record in sample)
    row_bytes = payload / len(sample) + 4 * encoder.dim
    return IndexPlan(index.kind, index.name, count, seconds / len(sample) * count, round(row_bytes * count))
