"""What a swap would take at another size: hours, devices, disk and traffic, from rates measured here or given."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from hins_memory.encoders.encoder import Encoder
from hins_memory.errors import AgentError

if TYPE_CHECKING:
    from hins_memory.plugins.protocols import Agent, Index, Record

__all__ = ["IndexProjection", "Scale", "SwapProjection", "project_swap"]

# Records that rates are measured on, and how many of them go first, because a first call is slower.
_SAMPLE, _FIRST = 256, 4
#: Of the indexes that the write rate is measured with. Always the same, so that what a kill left is used and dropped.
_SCRATCH = "_hins_rate"
_ASSUMED = (
    "Encoding and writing go at these rates for all records: a search index may take rows more slowly as it grows.",
    "The records here are like those to come: texts and payloads of their lengths.",
    "Devices and writers add up: each is as fast as the one measured, and the store takes all of them.",
    "Both indexes are kept until the old one is retired. What a search index adds to the rows is not counted.",
)
_DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class Scale:
    """A size to plan for.

    Attributes:
        memories: how many records the largest index would hold; the others grow in proportion.
        encode_rate: records that one device encodes in a second; None measures it on this machine.
        write_rate: records that the store takes from one writer in a second; None measures it in an index of its own,
            which is made beside the others and dropped at the end.
    """

    memories: float
    encode_rate: float | None = None
    write_rate: float | None = None


@dataclass(frozen=True, slots=True)
class IndexProjection:
    """What re-embedding one index takes; rates are records a second of one device and of one writer.

    `disk_bytes` is what its rows take beside the old ones. `traffic_bytes` goes between the store and what encodes:
    every record out, and back with its vector.
    """

    kind: str
    name: str
    records: float
    encode_rate: float
    write_rate: float
    disk_bytes: float
    traffic_bytes: float

    @property
    def encode_hours(self) -> float:
        """Hours of one device."""
        return self.records / self.encode_rate / 3600

    @property
    def write_hours(self) -> float:
        """Hours of one writer."""
        return self.records / self.write_rate / 3600


@dataclass(frozen=True, slots=True)
class SwapProjection:
    """A swap at another size. `measured` names the rates that were measured, `assumed` says what has to hold."""

    memories: float
    indexes: tuple[IndexProjection, ...]
    measured: tuple[str, ...]
    assumed: tuple[str, ...] = _ASSUMED

    @property
    def encode_hours(self) -> float:
        """Hours of one device."""
        return sum(one.encode_hours for one in self.indexes)

    @property
    def write_hours(self) -> float:
        """Hours of one writer."""
        return sum(one.write_hours for one in self.indexes)

    @property
    def devices_for_a_day(self) -> int:
        """How many devices encode all of it within 24 hours."""
        return math.ceil(self.encode_hours * 3600 / _DAY)

    @property
    def writers_for_a_day(self) -> int:
        """How many writers store all of it within 24 hours."""
        return math.ceil(self.write_hours * 3600 / _DAY)

    @property
    def disk_bytes(self) -> float:
        """What the new rows take beside the old ones."""
        return sum(one.disk_bytes for one in self.indexes)

    @property
    def traffic_bytes(self) -> float:
        """What goes between the store and what encodes."""
        return sum(one.traffic_bytes for one in self.indexes)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-able values, with its totals."""
        names = ("encode_hours", "write_hours", "devices_for_a_day", "writers_for_a_day", "disk_bytes", "traffic_bytes")
        return {**asdict(self), **{name: getattr(self, name) for name in names}}


def project_swap(agent: Agent, encoder: Encoder, scale: Scale) -> SwapProjection:
    """Return what swapping `agent` to `encoder` would take if it held `scale.memories`.

    Raises:
        AgentError: its indexes hold nothing to measure, or the store refuses an index to measure with.
    """
    live = agent.live_indexes()
    counts = {index.kind: index.count() for index in live}
    largest = max(counts.values(), default=0)
    if not largest:
        raise AgentError("The store holds no record, so nothing can be measured.", "Add memories first.")
    found = tuple(
        _project(agent, index, encoder, scale, scale.memories * counts[index.kind] / largest)
        for index in live
        if counts[index.kind]
    )
    rates = {"encoding": scale.encode_rate, "writing": scale.write_rate}
    return SwapProjection(scale.memories, found, tuple(name for name, given in rates.items() if given is None))


def _project(agent: Agent, index: Index, encoder: Encoder, scale: Scale, records: float) -> IndexProjection:
    sample = next(index.pages(_SAMPLE), [])
    if not sample:
        raise AgentError(f"{index.name} yields no record, so nothing can be measured.", "Look at the store.")
    # Without the cache, so that planning twice does not measure the cache.
    uncached = Encoder(encoder.model, encoder.version, cache_size=0)
    texts = [record.text for record in sample]
    uncached.encode(texts[:_FIRST])
    began = time.perf_counter()
    vectors = uncached.encode(texts)
    encode_rate = scale.encode_rate or len(sample) / (time.perf_counter() - began)
    write_rate = scale.write_rate or _write_rate(agent, index.kind, encoder, sample, vectors)
    payload = sum(len(json.dumps(dict(record.payload), default=repr).encode()) for record in sample) / len(sample)
    row = payload + 4 * encoder.dim
    return IndexProjection(
        index.kind, index.name, records, encode_rate, write_rate, row * records, (payload + row) * records
    )


def _write_rate(agent: Agent, kind: str, encoder: Encoder, sample: Sequence[Record], vectors: object) -> float:
    """Measure how fast the store takes records, in indexes of their own."""
    import numpy as np

    rows = np.asarray(vectors)
    scratch = agent.open_indexes(encoder.version, _SCRATCH)
    try:
        target = next(index for index in scratch if index.kind == kind)
        target.upsert(sample[:_FIRST], rows[:_FIRST])
        began = time.perf_counter()
        target.upsert(sample, rows)
        return len(sample) / (time.perf_counter() - began)
    finally:
        for index in scratch:
            index.drop()
