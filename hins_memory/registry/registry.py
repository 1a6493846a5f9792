"""The registry: a project's encoder versions, which one is current, and which index of an agent is live."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import sqlalchemy as sa

from hins_memory.config import Settings
from hins_memory.database.leases import Lease, LeaseHeldError
from hins_memory.database.tables import agent_indexes, encoder_versions
from hins_memory.encoders.manifest import Promotion, is_version_id
from hins_memory.errors import EncoderError, SwapError
from hins_memory.registry.changes import drop_changes, note_changes, read_changes
from hins_memory.registry.records import check_common, document_space, manifest_of, record_in_manifest
from hins_memory.registry.records import set_current as _set_current
from hins_memory.registry.scoped import ScopedVersion, ScopedVersionStore, nearest_version, scope_using
from hins_memory.registry.versions import EncoderVersion
from hins_memory.types import Scope, now

__all__ = ["EncoderVersion", "IndexRecord", "IndexState", "Registry", "ScopedVersion", "SwapProgress", "index_suffix"]

IndexState = Literal["live", "shadow", "previous", "retired"]


@dataclass(frozen=True, slots=True)
class IndexRecord:
    """One generation of an agent's indexes: the encoder version of its vectors, and its collections' suffix.

    `state` is live (serves), shadow (being built), previous (kept for rollback) or retired (to be dropped). `created`,
    in Unix seconds, is another one after the collections were dropped and made anew under the same names.
    """

    agent_key: str
    version: str
    suffix: str
    state: IndexState
    created: float = field(default=0.0, compare=False)


@dataclass(frozen=True, slots=True)
class SwapProgress:
    """How far an unfinished swap was when it last said so; it may have been killed since.

    Attributes:
        agent_key: whose swap.
        version: the version that is to serve.
        step: what it did, e.g. "build memories" or "verify memories".
        done: how many records are done.
        records: how many there are.
    """

    agent_key: str
    version: str
    step: str
    done: int
    records: int


class Registry(ScopedVersionStore):
    """A project's encoder versions and the state of its agents' indexes. Safe with several threads and processes.

    Args:
        settings: the project; versions live under `settings.encoders`, the tables in its database.
        engine: an engine that is open already; None opens the project's database.

    Raises:
        LogError: the database cannot be opened.
    """

    def __init__(self, settings: Settings, engine: sa.Engine | None = None) -> None:
        super().__init__(settings, engine)
        self._swap_leases: dict[str, Lease] = {}

    def generations(self, agent_key: str) -> list[IndexRecord]:
        """Return every generation of an agent's indexes in one read, in the order of recording."""
        with self._snapshot() as connection:
            return _rows(connection, agent_key)

    def document_space(self, version: str) -> str:
        """Return the name of the space of a version's document vectors: versions of one space share stored vectors.

        It is the version's own name, unless its manifest says otherwise (``document_space``).
        """
        with self._snapshot() as connection:
            return document_space(connection, version)

    def scoped_version(self, scope: Scope, space: str) -> str:
        """Return the version that embeds the searches of a scope over vectors of a space; "" for the common one."""
        return nearest_version(scope, self.versions_by_scope(), lambda version: self.document_space(version) == space)

    def note_changes(self, agent_key: str, kind: str, ids: Sequence[str]) -> bool:
        """Note records that are about to be written, for a rollback; return whether there is an index to return to."""
        with self._transaction() as connection:
            return note_changes(connection, agent_key, kind, ids)

    def changes(self, agent_key: str) -> dict[str, list[str]] | None:
        """Return the ids that were noted since the last swap, by kind; None when it is not known what changed."""
        with self._snapshot() as connection:
            return read_changes(connection, agent_key)

    def live_index(self, agent_key: str) -> IndexRecord | None:
        """Return the generation that serves, or None when this agent was never recorded."""
        return self._index(agent_key, "live")

    def previous_index(self, agent_key: str) -> IndexRecord | None:
        """Return the generation that a rollback returns to, if any."""
        return self._index(agent_key, "previous")

    def shadow_index(self, agent_key: str) -> IndexRecord | None:
        """Return the generation that an unfinished swap is building, if any."""
        return self._index(agent_key, "shadow")

    def retired_indexes(self, agent_key: str) -> list[IndexRecord]:
        """Return the generations whose collections are to be dropped; see `forget`."""
        return self._indexes(agent_key, "retired")

    def record_live(self, agent_key: str, version: str, suffix: str) -> None:
        """Record what serves an agent when it is first opened; the same again is harmless.

        Raises:
            SwapError: another version or suffix is recorded as live already, or the version is for one scope alone.
        """
        with self._fenced(agent_key) as connection:
            check_common(connection, version)
            live = _rows(connection, agent_key, "live")
            if not live:
                _insert_index(connection, IndexRecord(agent_key, version, suffix, "live"))
            elif (live[0].version, live[0].suffix) != (version, suffix):
                raise SwapError(
                    f"{agent_key} is served by the encoder version {live[0].version!r}, not {version!r}.",
                    "Open the agent again; use a swap to change its encoder.",
                )

    def begin_shadow(self, agent_key: str, version: str, suffix: str) -> None:
        """Record that the generation `suffix` is being built; a generation of that suffix is taken over as it is.

        Raises:
            SwapError: that suffix serves now or belongs to another version, another shadow is unfinished, or the
                version is gone or for one scope alone.
        """
        with self._fenced(agent_key) as connection:
            check_common(connection, version)
            for row in _rows(connection, agent_key):
                if row.suffix == suffix and (row.state == "live" or not _same_space(connection, row.version, version)):
                    raise SwapError(
                        f"{agent_key} has a {row.state} index {suffix!r} of the version {row.version!r}.",
                        "Use another suffix.",
                    )
                if row.state == "shadow" and row.suffix != suffix:
                    raise SwapError(
                        f"A swap of {agent_key} to {row.version!r} is unfinished.",
                        "Finish it by running it again, or abandon it first.",
                    )
            if is_version_id(version) and not _is_known(connection, version):
                raise SwapError(f"The encoder version {version} was pruned meanwhile.", "Swap to another one.")
            shadow = IndexRecord(agent_key, version, suffix, "shadow")
            if not _set_state(connection, shadow, "shadow"):
                _insert_index(connection, shadow)

    def note_progress(self, agent_key: str, suffix: str, step: str, done: int, records: int) -> None:
        """Note how far the swap is that builds the shadow `suffix`; without that shadow, nothing happens."""
        with self._transaction() as connection:
            connection.execute(
                sa.update(agent_indexes)
                .where(
                    agent_indexes.c.agent_key == agent_key,
                    agent_indexes.c.suffix == suffix,
                    agent_indexes.c.state == "shadow",
                )
                .values(step=step, done=done, records=records)
            )

    def swap_progress(self) -> list[SwapProgress]:
        """Return how far the project's unfinished swaps are."""
        columns = agent_indexes.c
        query = (
            sa.select(columns.agent_key, columns.version, columns.step, columns.done, columns.records)
            .where(columns.state == "shadow", columns.step.is_not(None))
            .order_by(columns.seq)
        )
        with self._snapshot() as connection:
            return [SwapProgress(*row) for row in connection.execute(query)]

    def abandon_shadow(self, agent_key: str) -> None:
        """Give up an unfinished swap: its generation becomes retired. Without one, nothing happens."""
        with self._fenced(agent_key) as connection:
            for row in _rows(connection, agent_key, "shadow"):
                _set_state(connection, row, "retired")

    def flip(self, agent_key: str, suffix: str) -> None:
        """Make the shadow live, the live one previous, an older previous one retired, and its version current.

        One transaction: a restart finds either all of it or nothing.

        Raises:
            SwapError: no shadow of that suffix is recorded.
        """
        with self._fenced(agent_key) as connection:
            shadow = [row for row in _rows(connection, agent_key, "shadow") if row.suffix == suffix]
            if not shadow:
                raise SwapError(
                    f"{agent_key} has no shadow index {suffix!r} to flip to.", "Build it with a swap first."
                )
            for state, after in (("previous", "retired"), ("live", "previous")):
                for row in _rows(connection, agent_key, state):
                    _set_state(connection, row, after)
            _set_state(connection, shadow[0], "live")
            drop_changes(connection, agent_key)
            _set_current(connection, shadow[0].version)
            _record_promotion(connection, shadow[0].version, agent_key)

    def flip_queries(self, agent_key: str, version: str) -> None:
        """Make a version live over the collections that serve already, because its documents' vectors are those.

        Like `flip` in everything else; both generations have the same suffix then.

        Raises:
            SwapError: nothing serves yet, the version's documents have other vectors, or it is gone or for one scope
                alone.
        """
        with self._fenced(agent_key) as connection:
            check_common(connection, version)
            live = _rows(connection, agent_key, "live")
            if not live or not _same_space(connection, live[0].version, version):
                raise SwapError(
                    f"{agent_key} is not served by vectors that {version!r} can search.", "Re-embed it with a swap."
                )
            if is_version_id(version) and not _is_known(connection, version):
                raise SwapError(f"The encoder version {version} was pruned meanwhile.", "Swap to another one.")
            for row in _rows(connection, agent_key, "previous"):
                _set_state(connection, row, "retired")
            _set_state(connection, live[0], "previous")
            record = IndexRecord(agent_key, version, live[0].suffix, "live")
            if not _set_state(connection, record, "live"):
                _insert_index(connection, record)
            _set_current(connection, version)
            _record_promotion(connection, version, agent_key)

    def flip_back(self, agent_key: str) -> None:
        """Exchange live and previous, and make the version that serves then the current one; one transaction.

        Raises:
            SwapError: there is no previous index.
        """
        with self._fenced(agent_key) as connection:
            live, previous = _rows(connection, agent_key, "live"), _rows(connection, agent_key, "previous")
            if not live or not previous:
                raise SwapError(f"{agent_key} has no previous index to return to.", "Only a swap leaves one.")
            _set_state(connection, live[0], "previous")
            _set_state(connection, previous[0], "live")
            _set_current(connection, previous[0].version)
            drop_changes(connection, agent_key, unknown=True)

    def retire(self, agent_key: str) -> list[IndexRecord]:
        """Give up the previous generation and return all that are retired, whose collections are to be dropped."""
        with self._fenced(agent_key) as connection:
            for row in _rows(connection, agent_key, "previous"):
                _set_state(connection, row, "retired")
            drop_changes(connection, agent_key)
            return _rows(connection, agent_key, "retired")

    def forget(self, agent_key: str, suffix: str) -> None:
        """Remove the record of a retired generation whose collections were dropped."""
        with self._fenced(agent_key) as connection:
            connection.execute(
                sa.delete(agent_indexes).where(
                    agent_indexes.c.agent_key == agent_key,
                    agent_indexes.c.suffix == suffix,
                    agent_indexes.c.state == "retired",
                )
            )

    def indexes(self) -> list[IndexRecord]:
        """Return every generation of every agent of the project, in the order in which they were first recorded."""
        with self._snapshot() as connection:
            return _rows(connection)

    def remove(self, id: str) -> None:
        """Take a version out of the registry, so that nothing can begin to use it; its folder stays.

        Raises:
            EncoderError: it is the current one, an agent has an index of it, or a scope uses it; nothing was changed.
        """
        with self._transaction() as connection:
            this = encoder_versions.c.id == id
            if connection.execute(sa.select(encoder_versions.c.current).where(this)).scalar():
                raise EncoderError(f"{id} is the current encoder version.", "Swap to another one first.")
            if (scope := scope_using(connection, id)) is not None:
                raise EncoderError(f"{scope} is served by {id}, or was before.", "Retire it: `hins swap --retire`.")
            users = [row for row in _rows(connection) if row.version == id]
            if users:
                raise EncoderError(
                    f"{users[0].agent_key} has a {users[0].state} index of {id}.",
                    "Swap it to another version, and drop the old index with `hins swap --retire`.",
                )
            connection.execute(sa.delete(encoder_versions).where(this))

    @contextlib.contextmanager
    def swap_lock(self, agent_key: str) -> Iterator[None]:
        """Hold the right to swap, roll back or retire an agent, on any host; it expires after a kill.

        Whatever is recorded of the agent's indexes meanwhile is recorded only if the right is still held.

        Raises:
            SwapError: another swap of the agent is running.
        """
        with contextlib.ExitStack() as stack:
            try:
                lease = stack.enter_context(self._leases.hold(f"swap {agent_key}"))
            except LeaseHeldError as error:
                raise SwapError(
                    f"Another swap, rollback or retirement of {agent_key} is running: {error.holder}.",
                    "Wait until it has ended.",
                ) from error
            self._swap_leases[agent_key] = lease
            stack.callback(self._swap_leases.pop, agent_key)
            yield

    @contextlib.contextmanager
    def _fenced(self, agent_key: str) -> Iterator[sa.Connection]:
        """Begin a transaction that changes an agent's indexes, if the right to swap that we had is still ours."""
        with self._transaction() as connection:
            if agent_key in self._swap_leases:
                self._swap_leases[agent_key].check(connection)
            yield connection

    def _indexes(self, agent_key: str, state: IndexState) -> list[IndexRecord]:
        with self._snapshot() as connection:
            return _rows(connection, agent_key, state)

    def _index(self, agent_key: str, state: IndexState) -> IndexRecord | None:
        records = self._indexes(agent_key, state)
        return records[-1] if records else None


def index_suffix(version: str) -> str:
    """Return what the names of a version's indexes end with."""
    return "_" + re.sub(r"[^A-Za-z0-9]+", "_", version).strip("_")


def _same_space(connection: sa.Connection, one: str, other: str) -> bool:
    """Return whether two versions make the same vectors of documents."""
    return one == other or document_space(connection, one) == document_space(connection, other)


def _is_known(connection: sa.Connection, version: str) -> bool:
    query = sa.select(encoder_versions.c.id).where(encoder_versions.c.id == version)
    return connection.execute(query).first() is not None


def _record_promotion(connection: sa.Connection, version: str, agent_key: str) -> None:
    """Record with a version that an agent serves with it from now on, and whether the gate was forced past."""
    manifest = manifest_of(connection, version)
    forced = bool(manifest and manifest.gates and manifest.gates[-1].forced)
    record_in_manifest(connection, version, Promotion(time=now(), forced=forced, agent=agent_key))


def _rows(connection: sa.Connection, agent_key: str | None = None, state: str | None = None) -> list[IndexRecord]:
    query = sa.select(agent_indexes).order_by(agent_indexes.c.seq)
    if agent_key is not None:
        query = query.where(agent_indexes.c.agent_key == agent_key)
    if state is not None:
        query = query.where(agent_indexes.c.state == state)
    rows = connection.execute(query)
    return [IndexRecord(row.agent_key, row.version, row.suffix, row.state, row.created) for row in rows]


def _insert_index(connection: sa.Connection, record: IndexRecord) -> None:
    time = now()
    connection.execute(
        sa.insert(agent_indexes).values(
            agent_key=record.agent_key,
            version=record.version,
            suffix=record.suffix,
            state=record.state,
            created=time,
            changed=time,
        )
    )


def _set_state(connection: sa.Connection, record: IndexRecord, state: str) -> bool:
    """Set the state of one generation; return whether it exists. How far its last swap was is forgotten."""
    this = (
        agent_indexes.c.agent_key == record.agent_key,
        agent_indexes.c.suffix == record.suffix,
        agent_indexes.c.version == record.version,
    )
    result = connection.execute(sa.update(agent_indexes).where(*this).values(state=state, changed=now(), step=None))
    return bool(result.rowcount)
