"""The registry: a project's immutable encoder versions, which one is current, and which index of an agent is live."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa

from hins_memory.config import Settings
from hins_memory.encoder import MANIFEST_NAME
from hins_memory.errors import EncoderError, SwapError
from hins_memory.log.database import database_errors, open_database, reading
from hins_memory.log.schema import agent_indexes, encoder_versions
from hins_memory.types import now
from hins_memory.version_folder import checked_files, file_lock, move_durably

__all__ = ["EncoderVersion", "IndexRecord", "IndexState", "Registry"]

logger = logging.getLogger(__name__)

IndexState = Literal["live", "shadow", "previous", "retired"]

_VERSION_ID = re.compile(r"v(\d{4,})-[0-9a-f]{8}")


@dataclass(frozen=True, slots=True)
class EncoderVersion:
    """One immutable encoder version: its id, its sentence-transformers folder, and what its manifest says."""

    id: str
    path: Path
    manifest: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class IndexRecord:
    """One generation of an agent's indexes: the encoder version of its vectors, and its collections' suffix.

    `state` is live (serves), shadow (being built), previous (kept for rollback) or retired (to be dropped).
    """

    agent_key: str
    version: str
    suffix: str
    state: IndexState


class Registry:
    """A project's encoder versions and the state of its agents' indexes. Safe with several threads and processes.

    Args:
        settings: the project; versions live under `settings.encoders`, the tables in its database.
        engine: an engine that is open already; None opens the project's database.

    Raises:
        LogError: the database cannot be opened.
    """

    def __init__(self, settings: Settings, engine: sa.Engine | None = None) -> None:
        self.settings = settings
        self._locks = settings.root / "locks"
        self._engine = engine or open_database(settings.database_url)

    def add(self, folder: Path, manifest: Mapping[str, Any]) -> EncoderVersion:
        """Take over a finished sentence-transformers folder as a new version.

        The folder is moved: afterwards it exists under `settings.encoders` only. A kill at any moment leaves either
        the folder where it was, or a complete version.

        Args:
            folder: what `SentenceTransformer.save` wrote, with safetensors weights.
            manifest: what is to be known about it (JSON); "id", "created" and "files" are filled in here.

        Raises:
            EncoderError: the folder is not an encoder, holds something else than safetensors weights, or cannot be
                moved; the manifest is not JSON.
        """
        folder = Path(folder)
        files = checked_files(folder)
        try:
            content = json.loads(json.dumps(dict(manifest)))
        except (TypeError, ValueError) as error:
            raise EncoderError(
                f"The manifest is not JSON: {error}", "Use numbers, strings, lists and dicts."
            ) from error
        identity = json.dumps([files, content], sort_keys=True).encode()
        with file_lock(self._locks / "encoders.lock"):
            number = 1 + max(self._numbers(), default=0)
            content["id"] = f"v{number:04}-{hashlib.sha256(identity).hexdigest()[:8]}"
            content.setdefault("created", now())
            content["files"] = files
            target = self.settings.encoders / content["id"]
            try:
                move_durably(folder, target, json.dumps(content, indent=2, ensure_ascii=False))
            except OSError as error:
                raise EncoderError(
                    f"{folder} could not be made the version {content['id']}: {error}",
                    f"Free space or fix the permissions of {self.settings.encoders}; the folder is still there.",
                ) from error
            self._insert(content)
        logger.info("Added the encoder version %s", content["id"])
        return EncoderVersion(content["id"], target, content)

    def get(self, id: str) -> EncoderVersion:
        """Return a version by its id.

        Raises:
            EncoderError: there is no such version, or its folder is missing.
        """
        found = self._select(encoder_versions.c.id == id)
        if not found:
            # A kill between the move and the insert leaves a complete folder that the table does not know.
            if not self._adopt(id):
                known = ", ".join(version.id for version in self.versions()) or "none yet"
                raise EncoderError(f"There is no encoder version {id!r}.", f"Known versions: {known}.")
            found = self._select(encoder_versions.c.id == id)
        if not found[0].path.is_dir():
            raise EncoderError(
                f"The folder of the encoder version {id} is missing: {found[0].path}.",
                "Restore it from a backup or train again.",
            )
        return found[0]

    def versions(self) -> list[EncoderVersion]:
        """Return all versions, oldest first."""
        known = {version.id for version in self._select(sa.true())}
        if self.settings.encoders.is_dir():
            for path in self.settings.encoders.iterdir():
                if path.name not in known:
                    self._adopt(path.name)
        return self._select(sa.true())

    def current(self) -> EncoderVersion | None:
        """Return the version that new agents start with, or None for the stock encoder.

        Raises:
            EncoderError: its folder is missing.
        """
        found = self._select(encoder_versions.c.current)
        return self.get(found[0].id) if found else None

    def promote(self, id: str, forced: bool = False) -> None:
        """Make a version the current one, in one transaction; when and whether by force is kept in its manifest.

        Args:
            id: the version.
            forced: whether it is promoted although the gate refused it.

        Raises:
            EncoderError: there is no such version, or its folder is missing.
        """
        self.get(id)
        with self._transaction() as connection:
            _set_current(connection, id)
            row = connection.execute(sa.select(encoder_versions.c.manifest).where(encoder_versions.c.id == id)).one()
            content = dict(row.manifest)
            content["promotions"] = [*content.get("promotions", ()), {"time": now(), "forced": forced}]
            connection.execute(sa.update(encoder_versions).where(encoder_versions.c.id == id).values(manifest=content))
        logger.log(logging.WARNING if forced else logging.INFO, "Promoted %s%s", id, " by force" if forced else "")

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
            SwapError: something else is recorded as live already.
        """
        with self._transaction() as connection:
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
            SwapError: that suffix serves now or belongs to another version, or another shadow is unfinished.
        """
        with self._transaction() as connection:
            for row in _rows(connection, agent_key):
                if row.suffix == suffix and (row.state == "live" or row.version != version):
                    raise SwapError(
                        f"{agent_key} has a {row.state} index {suffix!r} of the version {row.version!r}.",
                        "Use another suffix.",
                    )
                if row.state == "shadow" and row.suffix != suffix:
                    raise SwapError(
                        f"A swap of {agent_key} to {row.version!r} is unfinished.",
                        "Finish it by running it again, or abandon it first.",
                    )
            if not _set_state(connection, agent_key, suffix, "shadow"):
                _insert_index(connection, IndexRecord(agent_key, version, suffix, "shadow"))

    def abandon_shadow(self, agent_key: str) -> None:
        """Give up an unfinished swap: its generation becomes retired. Without one, nothing happens."""
        with self._transaction() as connection:
            for row in _rows(connection, agent_key, "shadow"):
                _set_state(connection, agent_key, row.suffix, "retired")

    def flip(self, agent_key: str, suffix: str) -> None:
        """Make the shadow live, the live one previous, an older previous one retired, and its version current.

        One transaction: a restart finds either all of it or nothing.

        Raises:
            SwapError: no shadow of that suffix is recorded.
        """
        with self._transaction() as connection:
            shadow = [row for row in _rows(connection, agent_key, "shadow") if row.suffix == suffix]
            if not shadow:
                raise SwapError(
                    f"{agent_key} has no shadow index {suffix!r} to flip to.", "Build it with a swap first."
                )
            for state, after in (("previous", "retired"), ("live", "previous")):
                for row in _rows(connection, agent_key, state):
                    _set_state(connection, agent_key, row.suffix, after)
            _set_state(connection, agent_key, suffix, "live")
            _set_current(connection, shadow[0].version)

    def flip_back(self, agent_key: str) -> None:
        """Exchange live and previous, and make the version that serves then the current one; one transaction.

        Raises:
            SwapError: there is no previous index.
        """
        with self._transaction() as connection:
            live, previous = _rows(connection, agent_key, "live"), _rows(connection, agent_key, "previous")
            if not live or not previous:
                raise SwapError(f"{agent_key} has no previous index to return to.", "Only a swap leaves one.")
            _set_state(connection, agent_key, live[0].suffix, "previous")
            _set_state(connection, agent_key, previous[0].suffix, "live")
            _set_current(connection, previous[0].version)

    def retire(self, agent_key: str) -> list[IndexRecord]:
        """Give up the previous generation and return all that are retired, whose collections are to be dropped."""
        with self._transaction() as connection:
            for row in _rows(connection, agent_key, "previous"):
                _set_state(connection, agent_key, row.suffix, "retired")
            return _rows(connection, agent_key, "retired")

    def forget(self, agent_key: str, suffix: str) -> None:
        """Remove the record of a retired generation whose collections were dropped."""
        with self._transaction() as connection:
            connection.execute(
                sa.delete(agent_indexes).where(
                    agent_indexes.c.agent_key == agent_key,
                    agent_indexes.c.suffix == suffix,
                    agent_indexes.c.state == "retired",
                )
            )

    @contextlib.contextmanager
    def swap_lock(self, agent_key: str) -> Iterator[None]:
        """Hold the right to swap, roll back or retire an agent; a kill releases it. Excludes processes of this host.

        Raises:
            SwapError: another swap of the agent is running.
        """
        path = self._locks / f"swap-{hashlib.sha256(agent_key.encode()).hexdigest()[:16]}.lock"
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(file_lock(path, wait=False))
            except BlockingIOError as error:
                raise SwapError(
                    f"Another swap, rollback or retirement of {agent_key} is running.", "Wait until it has ended."
                ) from error
            yield

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        """Begin a transaction that holds the write lock from its start, so that what it reads stays true."""
        with database_errors(self._engine.url), self._engine.begin() as connection:
            # SQLite transactions hold the write lock already (open_database begins them so).
            if connection.dialect.name == "postgresql":
                connection.execute(sa.text("LOCK TABLE agent_indexes IN SHARE ROW EXCLUSIVE MODE"))
            yield connection

    @contextlib.contextmanager
    def _snapshot(self) -> Iterator[sa.Connection]:
        """Begin a transaction that only reads and never waits for a writer."""
        with database_errors(self._engine.url), reading(self._engine).connect() as connection:
            yield connection

    def _select(self, condition: Any) -> list[EncoderVersion]:
        query = sa.select(encoder_versions.c.id, encoder_versions.c.manifest).where(condition)
        with self._snapshot() as connection:
            rows = connection.execute(query).all()
        # by number, not by time: a clock may jump
        rows = sorted(rows, key=lambda row: (len(row.id), row.id))
        return [EncoderVersion(row.id, self.settings.encoders / row.id, row.manifest) for row in rows]

    def _numbers(self) -> list[int]:
        """Return the numbers that are taken, in the table or on disk."""
        names = [version.id for version in self._select(sa.true())]
        names += [path.name for path in self.settings.encoders.glob("v*")]
        return [int(match.group(1)) for name in names if (match := _VERSION_ID.fullmatch(name))]

    def _insert(self, content: Mapping[str, Any]) -> None:
        values = {"id": content["id"], "manifest": dict(content), "created": float(content["created"])}
        with self._transaction() as connection:
            known = connection.execute(
                sa.select(encoder_versions.c.id).where(encoder_versions.c.id == content["id"])
            ).first()
            if known is None:
                connection.execute(sa.insert(encoder_versions).values(current=False, **values))

    def _adopt(self, id: str) -> bool:
        """Record a complete version folder that the table does not know; return whether there was one."""
        path = self.settings.encoders / id / MANIFEST_NAME
        if not _VERSION_ID.fullmatch(id) or not path.is_file():
            return False
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["id"] != id:
                raise ValueError(f"it is the manifest of {content['id']!r}")
            self._insert(content)
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("%s is not a version's manifest: %s", path, error)
            return False
        return True

    def _indexes(self, agent_key: str, state: IndexState) -> list[IndexRecord]:
        with self._snapshot() as connection:
            return _rows(connection, agent_key, state)

    def _index(self, agent_key: str, state: IndexState) -> IndexRecord | None:
        found = self._indexes(agent_key, state)
        return found[-1] if found else None


def _set_current(connection: sa.Connection, version: str) -> None:
    """Make `version` the only current one; a version that is not in the table means the stock encoder."""
    connection.execute(sa.update(encoder_versions).values(current=encoder_versions.c.id == version))


def _rows(connection: sa.Connection, agent_key: str, state: str | None = None) -> list[IndexRecord]:
    query = sa.select(agent_indexes).where(agent_indexes.c.agent_key == agent_key).order_by(agent_indexes.c.seq)
    if state is not None:
        query = query.where(agent_indexes.c.state == state)
    return [IndexRecord(row.agent_key, row.version, row.suffix, row.state) for row in connection.execute(query)]


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


def _set_state(connection: sa.Connection, agent_key: str, suffix: str, state: str) -> bool:
    """Set the state of one generation; return whether it exists."""
    result = connection.execute(
        sa.update(agent_indexes)
        .where(agent_indexes.c.agent_key == agent_key, agent_indexes.c.suffix == suffix)
        .values(state=state, changed=now())
    )
    return bool(result.rowcount)
