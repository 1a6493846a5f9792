"""The swap: re-embed a live agent into a shadow index, verify, flip, keep the old one; roll back; retire."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from hins_memory.encoder import Encoder
from hins_memory.errors import SwapError
from hins_memory.sync import IndexReport, IndexSync, Progress

if TYPE_CHECKING:
    from hins_memory.agent import Agent, Index
    from hins_memory.registry import IndexRecord, Registry

__all__ = [
    "IndexPlan",
    "IndexReport",
    "Progress",
    "SwapPlan",
    "SwapReport",
    "abandon_swap",
    "plan_swap",
    "retire_agent",
    "rollback_agent",
    "swap_agent",
]

logger = logging.getLogger(__name__)

# Texts that the dry run encodes to measure the speed.
_PLAN_SAMPLE = 64
_DEFAULT_BATCH = 256


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
        to_version: the one that would.
        indexes: one plan an index.
    """

    agent_key: str
    from_version: str
    to_version: str
    indexes: tuple[IndexPlan, ...]

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
        totals = {"records": self.records, "seconds": self.seconds, "disk_bytes": self.disk_bytes}
        return {**asdict(self), **totals}


@dataclass(frozen=True, slots=True)
class SwapReport:
    """What a swap or a rollback did.

    Attributes:
        agent_key: which agent.
        version: the encoder version that serves now.
        previous: the one that served before.
        suffix: the suffix of the collections that serve now.
        changed: False when `version` served already and nothing was to be done.
        indexes: one report an index.
        seconds: how long all of it took.
        flip_seconds: how long the flip itself took; searches were answered even then.
    """

    agent_key: str
    version: str
    previous: str
    suffix: str
    changed: bool
    indexes: tuple[IndexReport, ...]
    seconds: float
    flip_seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-able values."""
        return asdict(self)


def plan_swap(agent: Agent, encoder: Encoder) -> SwapPlan:
    """Return what swapping `agent` to `encoder` would take; changes nothing.

    Raises:
        AgentError: the agent's indexes cannot be read.
    """
    plans = tuple(_plan_index(index, encoder) for index in agent.live())
    return SwapPlan(agent.key, agent.encoder_version, encoder.version, plans)


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


def swap_agent(
    agent: Agent,
    version_id: str,
    encoder: Encoder,
    registry: Registry,
    *,
    batch_size: int = _DEFAULT_BATCH,
    progress: Progress | None = None,
) -> SwapReport:
    """Make a live agent serve with another encoder, its stored vectors included; it answers all the time.

    The same call again after a kill or an error resumes: what is in the shadow already is not encoded again.

    Args:
        agent: the live agent.
        version_id: the encoder version to serve with.
        encoder: that version, loaded.
        registry: where the swap is recorded.
        batch_size: how many records are encoded and written at a time.
        progress: told after each batch.

    Raises:
        SwapError: another swap runs, or this one did not finish; the live index serves as before.
    """
    started = time.perf_counter()
    if encoder.version != version_id:
        raise SwapError(
            f"The encoder that was loaded is {encoder.version!r}, not {version_id!r}.",
            "Load the encoder from that version's folder.",
        )
    with registry.swap_lock(agent.key):
        live = registry.live_index(agent.key)
        if live is None and agent.encoder_version:
            registry.record_live(agent.key, agent.encoder_version, "")
            live = registry.live_index(agent.key)
        before = agent.encoder_version
        if live is not None and live.version == version_id:
            # A flip that was recorded but not finished in this process is finished here.
            if before != version_id:
                agent.flip(live.version, live.suffix)
            seconds = time.perf_counter() - started
            return SwapReport(agent.key, version_id, before, live.suffix, before != version_id, (), seconds, 0.0)
        _check_in_step(agent, live)
        suffix = _begin_shadow(agent, version_id, registry)
        reports = _build(agent, version_id, suffix, encoder, batch_size, progress)
        flip_seconds = _flip(agent, version_id, suffix, registry, partial(registry.flip, agent.key, suffix))
        try:
            _drop_retired(agent, registry)
        except Exception:
            # The swap itself is done; the next swap or `retire_agent` tries again.
            logger.warning("An older index of %s could not be dropped", agent.key, exc_info=True)
    seconds = time.perf_counter() - started
    return SwapReport(agent.key, version_id, before, suffix, True, reports, seconds, flip_seconds)


def rollback_agent(
    agent: Agent,
    registry: Registry,
    load_encoder: Callable[[str], Encoder],
    *,
    batch_size: int = _DEFAULT_BATCH,
    progress: Progress | None = None,
) -> SwapReport:
    """Return a live agent to the index and the encoder before the last swap, with the writes that came since.

    Args:
        agent: the live agent.
        registry: where the swap was recorded.
        load_encoder: returns the encoder of a version id.
        batch_size: how many records are encoded and written at a time.
        progress: told after each batch.

    Raises:
        SwapError: there is nothing to roll back to, another swap runs, or this one did not finish; the live index
            serves as before.
    """
    started = time.perf_counter()
    with registry.swap_lock(agent.key):
        previous = registry.previous_index(agent.key)
        if previous is None:
            raise SwapError(f"{agent.key} has no previous index to return to.", "Only a swap leaves one.")
        if not previous.version:
            raise SwapError(
                f"Before the swap {agent.key} embedded with an encoder of its own, which cannot be loaded from here.",
                "Detach from the agent to return to its own index, which is as it was before the swap.",
            )
        before = agent.encoder_version
        _check_in_step(agent, registry.live_index(agent.key))
        encoder = load_encoder(previous.version)
        if encoder.version != previous.version:
            raise SwapError(
                f"The previous index was made by the encoder {previous.version!r}, but {encoder.version!r} was loaded.",
                "Restore that version, or swap to another one.",
            )
        reports = _build(agent, previous.version, previous.suffix, encoder, batch_size, progress)
        record = partial(registry.flip_back, agent.key)
        flip_seconds = _flip(agent, previous.version, previous.suffix, registry, record)
    seconds = time.perf_counter() - started
    return SwapReport(agent.key, previous.version, before, previous.suffix, True, reports, seconds, flip_seconds)


def retire_agent(agent: Agent, registry: Registry) -> list[str]:
    """Drop the indexes that a rollback would return to; return their names.

    Raises:
        SwapError: another swap runs, or an index could not be dropped; calling it again goes on.
    """
    with registry.swap_lock(agent.key):
        registry.retire(agent.key)
        with _explained(f"An old index of {agent.key} could not be dropped", "Retire it again; nothing else changed."):
            return _drop_retired(agent, registry)


def abandon_swap(agent: Agent, registry: Registry) -> list[str]:
    """Give up an unfinished swap and drop its shadow indexes; return their names. The live index is not touched.

    Raises:
        SwapError: the swap is running right now, or an index could not be dropped.
    """
    with registry.swap_lock(agent.key):
        agent.abandon()
        registry.abandon_shadow(agent.key)
        with _explained(f"A shadow of {agent.key} could not be dropped", "Try again; nothing else changed."):
            return _drop_retired(agent, registry)


def _check_in_step(agent: Agent, live: IndexRecord | None) -> None:
    """Refuse to copy from an index that does not serve any more: another process may have swapped meanwhile."""
    if live is not None and live.version != agent.encoder_version:
        raise SwapError(
            f"{agent.key} is served by {live.version!r} by now, but is open here with {agent.encoder_version!r}.",
            "Open the agent again and repeat.",
        )


def _begin_shadow(agent: Agent, version_id: str, registry: Registry) -> str:
    """Record the shadow, first giving up the unfinished one of another version; return its suffix."""
    suffix = "_" + re.sub(r"[^A-Za-z0-9]+", "_", version_id).strip("_")
    shadow = registry.shadow_index(agent.key)
    if shadow is not None and shadow.version != version_id:
        # Nobody is building it: whoever builds holds the swap lock.
        logger.warning("Giving up the unfinished swap of %s to %s", agent.key, shadow.version)
        registry.abandon_shadow(agent.key)
        with _explained(f"The unfinished shadow of {agent.key} could not be dropped", "Repeat the swap."):
            _drop_retired(agent, registry)
    elif shadow is not None:
        suffix = shadow.suffix
    registry.begin_shadow(agent.key, version_id, suffix)
    return suffix


def _build(
    agent: Agent, version: str, suffix: str, encoder: Encoder, batch_size: int, progress: Progress | None
) -> tuple[IndexReport, ...]:
    """Bring the indexes of `version` to the content of the live ones, with writes going to both from now on.

    Afterwards the agent still writes to both. On any failure it does not, and what was built stays for a resume.
    """
    problem = f"{agent.key} could not be re-embedded with {version}"
    with _explained(problem, "The live index serves as before. Run the same command again: it resumes."):
        try:
            targets = {index.kind: index for index in agent.open(version, suffix)}
            sources = {index.kind: index for index in agent.live()}
            if sources.keys() != targets.keys():
                raise SwapError(f"The agent has the indexes {sorted(sources)}, but opened {sorted(targets)}.")
            agent.begin(version, suffix)
            lock = agent.replicate_lock
            return tuple(
                IndexSync(source, targets[kind], encoder, lock, batch_size=batch_size, progress=progress).run()
                for kind, source in sources.items()
            )
        except BaseException:
            with contextlib.suppress(Exception):
                agent.abandon()
            raise


def _flip(agent: Agent, version: str, suffix: str, registry: Registry, record: Callable[[], None]) -> float:
    """Record the flip, then do it; return the seconds it took.

    In this order, because until the agent flips its writes reach both indexes: a kill in between loses nothing,
    and a restart opens what is recorded. The other way round, writes after the flip would be missing from the index
    that a restart opens. When the agent cannot flip, the record is taken back.
    """
    started = time.perf_counter()
    with _explained(f"{agent.key} could not be flipped to {version}", "Run the same command again: it resumes."):
        recorded = False
        try:
            # What the shadow lacks must reach it first: after a kill behind the record a restart opens the shadow.
            agent.drain()
            record()
            recorded = True
            agent.flip(version, suffix)
        except BaseException:
            if recorded and agent.encoder_version != version:
                registry.flip_back(agent.key)
                agent.abandon()
            elif not recorded:
                agent.abandon()
            raise
    return time.perf_counter() - started


def _drop_retired(agent: Agent, registry: Registry) -> list[str]:
    """Drop the collections of every retired generation that we made, then forget it; return their names."""
    dropped: list[str] = []
    serving = {index.name for index in agent.live()}
    for record in registry.retired_indexes(agent.key):
        # An index with the agent's own encoder (no version) was there before us, and is not ours to drop.
        for index in agent.open(record.version, record.suffix) if record.version else ():
            if index.name in serving:
                raise SwapError(f"The retired index {index.name} serves.", "Open the agent again and repeat.")
            index.drop()
            dropped.append(index.name)
        registry.forget(agent.key, record.suffix)
    return dropped


@contextlib.contextmanager
def _explained(problem: str, hint: str) -> Iterator[None]:
    """Turn any error into a SwapError that says what happened and what to do."""
    try:
        yield
    except Exception as error:
        reason = str(error).rstrip(".") or type(error).__name__
        raise SwapError(f"{problem}: {reason}.", hint) from error
