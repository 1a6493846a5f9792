"""The swap: re-embed a live agent into a shadow index, verify, flip, keep the old one; roll back; retire."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from hins_memory.common.tracing import traced
from hins_memory.encoders.encoder import Encoder
from hins_memory.errors import AgentError, HinsError, SwapError
from hins_memory.registry.registry import index_suffix
from hins_memory.swapping.query_only import check_shared_vectors, flip_queries, shares_vectors, suffixes_in_use
from hins_memory.swapping.sync import IndexReport, IndexSync, Progress

if TYPE_CHECKING:
    from hins_memory.plugins.protocols import Agent
    from hins_memory.registry.registry import IndexRecord, Registry

__all__ = ["SwapReport", "abandon_swap", "retire_agent", "rollback_agent", "swap_agent"]

logger = logging.getLogger(__name__)

_DEFAULT_BATCH = 1024
# So often is it noted how far a swap is: seconds.
_NOTE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class SwapReport:
    """What a swap or a rollback did.

    Attributes:
        agent_key: which agent.
        version: the encoder version that serves now.
        previous: the one that served before.
        suffix: the suffix of the collections that serve now.
        changed: False when `version` served already and nothing was to be done.
        indexes: one report an index; none where the version shares its documents' vectors with the one before, so
            that no stored vector was touched.
        seconds: how long all of it took.
        flip_seconds: for how long the flip kept the agent's users waiting: with Mem0 those who write, with MemoryOS,
            whose vectors are in its own files, all.
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


@traced("hins.swap")
def swap_agent(
    agent: Agent,
    version_id: str,
    encoder: Encoder,
    registry: Registry,
    *,
    replaces: str | None = None,
    batch_size: int = _DEFAULT_BATCH,
    progress: Progress | None = None,
) -> SwapReport:
    """Make a live agent serve with another encoder, its stored vectors included; it answers all the time.

    The same call again after a kill or an error resumes: records that the shadow has are not encoded again.

    Args:
        agent: the live agent.
        version_id: the encoder version to serve with.
        encoder: that version, loaded.
        registry: where the swap is recorded.
        replaces: the version that the gate compared with; None swaps whatever serves.
        batch_size: how many records are encoded and written at a time.
        progress: told after each batch.

    Raises:
        SwapError: another swap runs, another version than `replaces` serves by now, or this swap did not finish; the
            live index serves as before.
    """
    started = time.perf_counter()
    if encoder.version != version_id:
        raise SwapError(
            f"The encoder that was loaded is {encoder.version!r}, not {version_id!r}.",
            "Load the encoder from that version's folder.",
        )
    with registry.swap_lock(agent.store_id):
        agent.refresh()
        live = registry.live_index(agent.store_id)
        if live is None and agent.encoder_version:
            registry.record_live(agent.store_id, agent.encoder_version, "")
            live = registry.live_index(agent.store_id)
        before = agent.encoder_version
        if live is not None and live.version == version_id:
            # A flip that was recorded but not finished in this process is finished here.
            if before != version_id:
                agent.switch_to(live.version, live.suffix)
            seconds = time.perf_counter() - started
            return SwapReport(agent.store_id, version_id, before, live.suffix, before != version_id, (), seconds, 0.0)
        if replaces is not None and before != replaces:
            raise SwapError(
                f"{version_id} was compared with {replaces or 'an encoder of the agent'}, but {before} serves by now.",
                "Another process swapped meanwhile: judge the version again (hins gate), then swap.",
            )
        _check_open_version(agent, live)
        reports: tuple[IndexReport, ...] = ()
        if live is not None and shares_vectors(live, version_id, registry):
            suffix = live.suffix
            check_shared_vectors(agent, encoder)
            flip_seconds = _flip_queries(agent, version_id, suffix, registry)
        else:
            suffix = _begin_shadow(agent, version_id, registry)
            noted = _noted(registry, agent.store_id, suffix, progress)
            reports = _build(agent, version_id, suffix, _BuildSettings(encoder, batch_size, noted))
            flip_seconds = _flip(agent, version_id, suffix, registry, partial(registry.flip, agent.store_id, suffix))
            _warn_of_idle_towers(registry)
        try:
            _drop_unserved(agent, registry)
        except Exception:
            # The swap itself is done; the next swap or `retire_agent` tries again.
            logger.warning("An older index of %s could not be dropped", agent.store_id, exc_info=True)
    seconds = time.perf_counter() - started
    return SwapReport(agent.store_id, version_id, before, suffix, True, reports, seconds, flip_seconds)


@traced("hins.rollback")
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
    with registry.swap_lock(agent.store_id):
        agent.refresh()
        previous = _rollback_target(agent, registry)
        if not previous.version:
            raise SwapError(
                f"Before the swap {agent.store_id} embedded with an encoder of its own, which cannot be loaded here.",
                "Detach from the agent to return to its own index, which is as it was before the swap.",
            )
        before = agent.encoder_version
        _check_open_version(agent, registry.live_index(agent.store_id))
        encoder = load_encoder(previous.version)
        if encoder.version != previous.version:
            raise SwapError(
                f"The previous index was made by the encoder {previous.version!r}, but {encoder.version!r} was loaded.",
                "Restore that version, or swap to another one.",
            )
        reports: tuple[IndexReport, ...] = ()
        if shares_vectors(registry.live_index(agent.store_id), previous.version, registry):
            flip_seconds = _flip_queries(agent, previous.version, previous.suffix, registry)
        else:
            # Recorded as being built, so that other processes write to it as well.
            shadow = registry.shadow_index(agent.store_id)
            if shadow is not None and shadow.suffix != previous.suffix:
                _give_up_shadow(agent, registry)
            registry.begin_shadow(agent.store_id, previous.version, previous.suffix)
            noted = _noted(registry, agent.store_id, previous.suffix, progress)
            settings = _BuildSettings(encoder, batch_size, noted, partial(registry.changes, agent.store_id))
            reports = _build(agent, previous.version, previous.suffix, settings)
            record = partial(registry.flip, agent.store_id, previous.suffix)
            flip_seconds = _flip(agent, previous.version, previous.suffix, registry, record)
            _warn_of_idle_towers(registry)
    seconds = time.perf_counter() - started
    return SwapReport(agent.store_id, previous.version, before, previous.suffix, True, reports, seconds, flip_seconds)


def retire_agent(agent: Agent, registry: Registry) -> list[str]:
    """Drop the indexes that a rollback would return to; return their names.

    Raises:
        SwapError: another swap runs, or an index could not be dropped; calling it again goes on.
    """
    with registry.swap_lock(agent.store_id):
        agent.refresh()
        registry.retire(agent.store_id)
        with _as_swap_error(
            f"An old index of {agent.store_id} could not be dropped", "Retire it again; nothing else changed."
        ):
            return _drop_unserved(agent, registry)


def abandon_swap(agent: Agent, registry: Registry) -> list[str]:
    """Give up an unfinished swap and drop its shadow indexes; return their names. The live index is not touched.

    Raises:
        SwapError: the swap is running right now, or an index could not be dropped.
    """
    with registry.swap_lock(agent.store_id):
        agent.stop_dual_write()
        registry.abandon_shadow(agent.store_id)
        with _as_swap_error(f"A shadow of {agent.store_id} could not be dropped", "Try again; nothing else changed."):
            return _drop_retired(agent, registry)


def _rollback_target(agent: Agent, registry: Registry) -> IndexRecord:
    """Return the generation that served before the last swap, also when a rollback to it was interrupted."""
    states = {record.state: record for record in registry.generations(agent.store_id)}
    order = list(states)
    if "previous" in states:
        return states["previous"]
    if "shadow" in states and "live" in states and order.index("shadow") < order.index("live"):
        return states["shadow"]
    raise SwapError(f"{agent.store_id} has no previous index to return to.", "Only a swap leaves one.")


def _check_open_version(agent: Agent, live: IndexRecord | None) -> None:
    """Raise a SwapError if the live version is not the open one: another process may have swapped."""
    if live is not None and live.version != agent.encoder_version:
        raise SwapError(
            f"{agent.store_id} is served by {live.version!r} by now, but is open here with {agent.encoder_version!r}.",
            "Open the agent again and repeat.",
        )


def _begin_shadow(agent: Agent, version_id: str, registry: Registry) -> str:
    """Record the shadow, first giving up the unfinished one of another version; return its suffix."""
    suffix = index_suffix(version_id)
    shadow = registry.shadow_index(agent.store_id)
    if shadow is not None and shadow.version == version_id:
        suffix = shadow.suffix
    else:
        _give_up_shadow(agent, registry)
    registry.begin_shadow(agent.store_id, version_id, suffix)
    return suffix


def _give_up_shadow(agent: Agent, registry: Registry) -> None:
    """Give up the unfinished swap of the agent, if any. No other process is building it: this one holds the lock."""
    shadow = registry.shadow_index(agent.store_id)
    if shadow is not None:
        logger.warning("Giving up the unfinished swap of %s to %s", agent.store_id, shadow.version)
        registry.abandon_shadow(agent.store_id)
        with _as_swap_error(f"The unfinished shadow of {agent.store_id} could not be dropped", "Repeat the swap."):
            _drop_retired(agent, registry)


def _flip_queries(agent: Agent, version: str, suffix: str, registry: Registry) -> float:
    """Change only the encoder of queries, which makes the same vectors of documents; return the seconds it took."""
    _give_up_shadow(agent, registry)
    with _as_swap_error(f"{agent.store_id} could not be flipped to {version}", "It serves as before."):
        return flip_queries(agent, version, suffix, registry)


@dataclass(frozen=True, slots=True)
class _BuildSettings:
    """How an index is built. `changes` returns the ids that can differ, by kind; None: any can."""

    encoder: Encoder
    batch_size: int
    progress: Progress
    changes: Callable[[], dict[str, list[str]] | None] | None = None


def _noted(registry: Registry, agent_key: str, suffix: str, progress: Progress | None) -> Progress:
    """Return what a build tells its progress: it is noted for other processes to show, and passed on."""
    last_step, last_time = "", 0.0

    def note(step: str, done: int, records: int) -> None:
        nonlocal last_step, last_time
        if step != last_step or done >= records or time.monotonic() - last_time >= _NOTE_SECONDS:
            last_step, last_time = step, time.monotonic()
            try:
                registry.note_progress(agent_key, suffix, step, done, records)
            except HinsError as error:
                logger.warning("How far the swap of %s is could not be noted: %s", agent_key, error)
        if progress is not None:
            progress(step, done, records)

    return note


def _build(agent: Agent, version: str, suffix: str, build: _BuildSettings) -> tuple[IndexReport, ...]:
    """Bring the indexes of `version` to the content of the live ones, with writes going to both from now on.

    Afterwards the agent still writes to both. On any failure it does not, and what was built stays for a resume.
    """
    problem = f"{agent.store_id} could not be re-embedded with {version}"
    with _as_swap_error(problem, "The live index serves as before. Run the same command again: it resumes."):
        try:
            targets = {index.kind: index for index in agent.open_indexes(version, suffix)}
            sources = {index.kind: index for index in agent.live_indexes()}
            if sources.keys() != targets.keys():
                raise SwapError(f"The agent has the indexes {sorted(sources)}, but opened {sorted(targets)}.")
            agent.start_dual_write(version, suffix)
            # Read after dual writing began: from then on, writes reach both indexes.
            noted = build.changes() if build.changes is not None and agent.records_changes else None
            return tuple(
                IndexSync(
                    source,
                    targets[kind],
                    build.encoder,
                    agent.dual_write_lock,
                    batch_size=build.batch_size,
                    progress=build.progress,
                ).run(None if noted is None else noted.get(kind, []))
                for kind, source in sources.items()
            )
        except BaseException:
            with contextlib.suppress(Exception):
                agent.stop_dual_write()
            raise


def _flip(agent: Agent, version: str, suffix: str, registry: Registry, record: Callable[[], None]) -> float:
    """Record the flip, then do it; return the seconds for which the agent's users were kept waiting.

    In this order, because until the agent flips its writes reach both indexes: a kill in between loses nothing,
    and a restart opens what is recorded. The other way round, writes after the flip would be missing from the index
    that a restart opens. When the agent cannot flip, the record is taken back.
    """
    with _as_swap_error(
        f"{agent.store_id} could not be flipped to {version}", "Run the same command again: it resumes."
    ):
        recorded = False
        try:
            # All writes must reach the shadow first: after a kill behind the record, a restart opens the shadow.
            agent.flush_dual_writes()
            shadow = registry.shadow_index(agent.store_id)
            if shadow is None or shadow.suffix != suffix:
                raise SwapError("another process that has the agent open gave the swap up, and its log says why.")
            record()
            recorded = True
            return agent.switch_to(version, suffix)
        except BaseException:
            if recorded and agent.encoder_version != version:
                registry.flip_back(agent.store_id)
                agent.stop_dual_write()
            elif not recorded:
                agent.stop_dual_write()
            raise


def _warn_of_idle_towers(registry: Registry) -> None:
    """Say which scopes have towers over vectors that are not stored any more, after a swap that re-embedded."""
    idle = [one.scope for one in registry.scoped_versions() if one.version and not one.serves]
    if idle:
        logger.warning(
            "The towers of %d scopes search vectors that no agent serves from, so that the common encoder serves "
            "them: %s. Train them again, or roll back.",
            len(idle),
            ", ".join(idle[:5]) + (" ..." if len(idle) > 5 else ""),
        )


def _drop_unserved(agent: Agent, registry: Registry) -> list[str]:
    """Drop retired collections that served, once no other process uses them; return their names."""
    if registry.retired_indexes(agent.store_id):
        # Other processes may still run operations that began before the flip.
        time.sleep(agent.switch_delay_seconds)
    return _drop_retired(agent, registry)


def _drop_retired(agent: Agent, registry: Registry) -> list[str]:
    """Drop the collections that swaps made for retired generations, then forget the generations; return their names."""
    dropped: list[str] = []
    serving = {index.name for index in agent.live_indexes()}
    kept = suffixes_in_use(agent.store_id, registry)
    for record in registry.retired_indexes(agent.store_id):
        # An index with the agent's own encoder (no version) was there before us, and is not ours to drop; one that
        # another generation serves from too is still needed.
        droppable = record.version and record.suffix not in kept
        for index in agent.open_indexes(record.version, record.suffix) if droppable else ():
            if index.name in serving:
                raise SwapError(f"The retired index {index.name} serves.", "Open the agent again and repeat.")
            index.drop()
            dropped.append(index.name)
        registry.forget(agent.store_id, record.suffix)
        kept.add(record.suffix)
    return dropped


@contextlib.contextmanager
def _as_swap_error(problem: str, hint: str) -> Iterator[None]:
    """Raise any error as a SwapError that says what happened and what to do."""
    try:
        yield
    except AgentError as error:
        # An AgentError has a hint of its own.
        raise SwapError(f"{problem}: {error.problem.rstrip('.')}.", error.hint or hint) from error
    except Exception as error:
        reason = str(error).rstrip(".") or type(error).__name__
        raise SwapError(f"{problem}: {reason}.", hint) from error
