"""A project's immutable encoder versions: taken over, found, made current, and what is recorded of them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from hins_memory.common.files import file_lock
from hins_memory.config import Settings
from hins_memory.database.engine import database_errors, open_database, reading
from hins_memory.database.leases import Leases
from hins_memory.database.tables import encoder_versions
from hins_memory.encoders.manifest import Description, GateVerdict, Manifest, Promotion, is_version_id, read_manifest
from hins_memory.errors import EncoderError
from hins_memory.registry.folder import checked_files, move_durably, unpacking
from hins_memory.registry.records import (
    BROKEN_RECORD,
    check_common,
    manifest_column,
    manifest_of_row,
    record_in_manifest,
    set_current,
)
from hins_memory.registry.remote import RemoteVersions
from hins_memory.types import now

__all__ = ["EncoderVersion", "Listing", "VersionStore"]

logger = logging.getLogger(__name__)

# The largest number that an id has room for; versions from elsewhere may not use up what is left.
_LAST_NUMBER = 99_999_999
_LAST_FOREIGN_NUMBER = 9_999_999


@dataclass(frozen=True, slots=True)
class EncoderVersion:
    """One immutable encoder version: its id, its sentence-transformers folder, and what its manifest says.

    `manifest` is the one in the folder and, beside it, what happened in this project since: gates and promotions.
    """

    id: str
    path: Path
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Listing:
    """What a project's folder and table hold: versions, oldest first, and why others cannot be read, by name."""

    versions: list[EncoderVersion]
    unreadable: dict[str, str]


class VersionStore:
    """A project's encoder versions. Safe with several threads and processes.

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
        self._leases = Leases(self._engine, self._locks)
        #: the versions in the store that all hosts reach, if the project has one
        self.remote = RemoteVersions(settings, self._leases) if settings.store else None

    def add(self, folder: Path, description: Description | Mapping[str, Any]) -> EncoderVersion:
        """Take over a finished sentence-transformers folder as a new version.

        The folder is moved: afterwards it exists under `settings.encoders` only. A kill at any moment leaves either
        the folder where it was, or a complete version.

        Args:
            folder: what `SentenceTransformer.save` wrote, with safetensors weights.
            description: what is to be known about it; the id, the time and the files are filled in here. A mapping
                may hold other names beside the fields of `Description`.

        Raises:
            EncoderError: the folder is not an encoder, holds something else than safetensors weights, or cannot be
                moved; the description is not valid. Nothing was moved then.
        """
        folder = Path(folder)
        values = dict(description) if isinstance(description, Mapping) else description.to_dict()
        for name in ("id", "files", "gates", "promotions"):
            values.pop(name, None)
        # Everything but the id is checked before the folder is looked at, because that takes longer.
        time = now()
        Manifest.given({"created": time, **values, "id": "v0001-00000000"})
        files = checked_files(folder)
        identity = json.dumps([files, values], sort_keys=True).encode()
        values.setdefault("created", time)
        with self.folder_lock():
            number = min(1 + max(self._numbers(), default=0), _LAST_NUMBER)
            id = f"v{number:04}-{hashlib.sha256(identity).hexdigest()[:8]}"
            manifest = Manifest.given({**values, "id": id, "files": files})
            target = self._move(folder, id, manifest.to_json().encode())
            self._publish(manifest)
        logger.info("Added the encoder version %s", id)
        return EncoderVersion(id, target, manifest)

    def admit(self, folder: Path, content: bytes) -> EncoderVersion:
        """Take over a finished version folder from elsewhere as it is, under the id that its manifest says.

        The folder is moved, as by `add`. Its files must have been compared with the manifest's digests before. Verdicts
        and promotions are those of where it was made, and are not taken over.

        Args:
            folder: the folder.
            content: the text of its manifest, which is written to it here.

        Raises:
            EncoderError: there is another version of that id, the manifest is not valid, or the folder cannot be moved.
        """
        try:
            manifest = Manifest.from_json(content).as_made()
        except ValueError as error:
            raise EncoderError(f"The manifest is not valid: {error}.", "Export the version again.") from error
        id = manifest.id
        with self.folder_lock():
            self.check_new(manifest)
            target = self.settings.encoders / id
            if os.path.lexists(target):
                raise EncoderError(
                    f"{target} is there already.",
                    "`hins encoders list` says what it is; if it is not needed, remove it.",
                )
            # It was private until it was checked.
            shutil.copymode(self.settings.encoders, folder)
            self._move(folder, id, content)
            self._publish(manifest)
        return self.get(id)

    def check_new(self, manifest: Manifest) -> EncoderVersion | None:
        """Return the version that a manifest from elsewhere describes, if it is known, with its folder or without.

        Raises:
            EncoderError: another version has its id, or its number is too large.
        """
        id = manifest.id
        if _number(id) > _LAST_FOREIGN_NUMBER:
            raise EncoderError(f"{id} has a number over {_LAST_FOREIGN_NUMBER}.", "Export a version with another id.")
        listing = self._read(encoder_versions.c.id == id)
        if id in listing.unreadable:
            raise EncoderError(f"The record of {id} cannot be read: {listing.unreadable[id]}.", BROKEN_RECORD)
        if listing.versions and listing.versions[0].manifest.as_made() != manifest.as_made():
            raise EncoderError(
                f"There is another encoder version {id} with other files or another manifest.",
                "Import it into another project.",
            )
        return listing.versions[0] if listing.versions else None

    def _move(self, folder: Path, id: str, manifest: bytes) -> Path:
        target = self.settings.encoders / id
        try:
            move_durably(folder, target, manifest)
        except OSError as error:
            raise EncoderError(
                f"{folder} could not be made the version {id}: {error}",
                f"Free space or fix the permissions of {self.settings.encoders}; the folder is still there.",
            ) from error
        return target

    def get(self, id: str) -> EncoderVersion:
        """Return a version by its id.

        Raises:
            EncoderError: there is no such version, or its folder is missing.
        """
        listing = self._read(encoder_versions.c.id == id)
        if not (listing.versions or listing.unreadable):
            # A kill between the move and the insert leaves a complete folder without a row in the table.
            reason = (
                self._register_folder(id) if is_version_id(id) and (self.settings.encoders / id).is_dir() else "unknown"
            )
            if reason == "unknown":
                known = ", ".join(version.id for version in self.versions()) or "none yet"
                raise EncoderError(f"There is no encoder version {id!r}.", f"Known versions: {known}.")
            if reason:
                raise EncoderError(f"The encoder version {id} cannot be read: {reason}", "Restore it, or remove it.")
            listing = self._read(encoder_versions.c.id == id)
        if listing.unreadable or not listing.versions:
            reason = listing.unreadable.get(id, "it was removed meanwhile")
            raise EncoderError(f"The record of the encoder version {id} cannot be read: {reason}.", BROKEN_RECORD)
        found = listing.versions[0]
        if not found.path.is_dir() and not self._fetch(found):
            raise EncoderError(
                f"The folder of the encoder version {id} is missing: {found.path}.",
                "If another host has it, `hins encoders export` there and `hins encoders import` here; else restore "
                "it from a backup or train again. With HINS_STORE all hosts find every version.",
            )
        return found

    def _fetch(self, version: EncoderVersion) -> bool:
        """Copy a version from the project's store; return whether it is there."""
        if self.remote is None:
            return False
        with self.unpacking() as folder:
            # Another process of this host may have fetched it while this one waited for the lock.
            if version.path.is_dir():
                return True
            content = self.remote.download(version.manifest, folder)
            if content is None:
                return False
            with self.folder_lock():
                shutil.copymode(self.settings.encoders, folder)
                self._move(folder, version.id, content)
                self.published(version.id).touch()
        logger.info("Fetched the encoder version %s", version.id)
        return True

    def versions(self) -> list[EncoderVersion]:
        """Return all versions that can be read, oldest first."""
        return self.listing().versions

    def listing(self) -> Listing:
        """Return all versions, and what else is in their folder or table and cannot be read as one.

        A broken folder or record is listed with the reason; everything else works.
        """
        known = set(self.ids())
        unreadable: dict[str, str] = {}
        for path in self._folders():
            if path.name not in known and (reason := self._register_folder(path.name)) not in ("", "unknown"):
                unreadable[_printable(path.name)] = reason
        listing = self._read(sa.true())
        return Listing(listing.versions, unreadable | listing.unreadable)

    def _folders(self) -> list[Path]:
        """Return the entries of `settings.encoders` except hidden ones, which are unfinished or not ours."""
        try:
            return sorted(path for path in self.settings.encoders.iterdir() if not path.name.startswith("."))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise EncoderError(f"{self.settings.encoders} cannot be read: {error}.", "Fix its permissions.") from error

    def current(self) -> EncoderVersion | None:
        """Return the version that new agents start with, or None while nothing was promoted.

        Raises:
            EncoderError: its folder is missing.
        """
        id = self.current_id()
        return self.get(id) if id else None

    def current_id(self) -> str:
        """Return the id of the current version, whether its folder is there or not; "" while nothing was promoted."""
        return next(iter(self.ids(encoder_versions.c.current)), "")

    def promote(self, id: str, forced: bool = False) -> None:
        """Make a version the current one, in one transaction; when and whether by force is kept in its manifest.

        Args:
            id: the version.
            forced: whether it is promoted although the gate refused it.

        Raises:
            EncoderError: there is no such version, or its folder is missing.
            SwapError: it is for one scope alone.
        """
        self.get(id)
        with self._transaction() as connection:
            check_common(connection, id)
            set_current(connection, id)
            record_in_manifest(connection, id, Promotion(time=now(), forced=forced))
        logger.log(logging.WARNING if forced else logging.INFO, "Promoted %s%s", id, " by force" if forced else "")

    def record_gate(self, id: str, verdict: Mapping[str, Any]) -> None:
        """Keep a verdict of the gate on a version, or that it is about to be forced past, with the time.

        Args:
            id: the version; one that is not in the registry (the stock encoder) is left out.
            verdict: JSON values, e.g. ``{"passed": False, "forced": True, "failures": ["held_out_gain"]}``.
        """
        with self._transaction() as connection:
            record_in_manifest(connection, id, GateVerdict(**{"time": now(), **verdict}))

    def unpacking(self) -> contextlib.AbstractContextManager[Path]:
        """Return a folder beside the versions to unpack one in; removed at the end, after a kill by the next call."""
        return unpacking(self.settings.encoders, self._locks / "import.lock")

    def folder_lock(self) -> contextlib.AbstractContextManager[object]:
        """Return the lock of this host that is held while a version's folder is moved in or out."""
        return file_lock(self._locks / "encoders.lock")

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        """Begin a transaction that holds the write lock from its start: no other process changes what it reads."""
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

    def ids(self, condition: Any = None) -> list[str]:
        """Return the ids in the table by number, not by time (a clock may jump); no folder and no manifest is read."""
        query = sa.select(encoder_versions.c.id).where(sa.true() if condition is None else condition)
        with self._snapshot() as connection:
            return sorted(connection.execute(query).scalars(), key=_order)

    def _read(self, condition: Any) -> Listing:
        """Return the versions of the table in the same order, and why a row cannot be read."""
        query = sa.select(encoder_versions.c.id, manifest_column(), encoder_versions.c.created).where(condition)
        with self._snapshot() as connection:
            rows = connection.execute(query).all()
        listing = Listing([], {})
        for id, text, created in sorted(rows, key=lambda row: _order(row[0])):
            try:
                manifest = manifest_of_row(id, text, created)
                listing.versions.append(EncoderVersion(id, self.settings.encoders / id, manifest))
            except ValueError as error:
                listing.unreadable[_printable(id)] = f"its record in the log is not valid: {error}"
        return listing

    def _numbers(self) -> list[int]:
        """Return the numbers that are taken, in the table or on disk."""
        names = [*self.ids(), *(path.name for path in self._folders())]
        return [_number(name) for name in names if is_version_id(name)]

    def _publish(self, manifest: Manifest) -> None:
        """Upload a complete folder, where all hosts share a store, and then let every process find it."""
        if self.remote is None:
            self._insert(manifest)
        else:
            self.remote.upload(self.settings.encoders / manifest.id, manifest, lambda: self._insert(manifest))
            self.published(manifest.id).touch()

    def published(self, id: str) -> Path:
        """Return a file beside a folder that all hosts had: if the table does not know it, one of them removed it."""
        return self.settings.encoders / f".published-{id}"

    def _insert(self, manifest: Manifest) -> None:
        values = {"id": manifest.id, "manifest": manifest.to_dict(), "created": manifest.created}
        with self._transaction() as connection:
            known = connection.execute(
                sa.select(encoder_versions.c.id).where(encoder_versions.c.id == manifest.id)
            ).first()
            if known is None:
                connection.execute(sa.insert(encoder_versions).values(current=False, **values))

    def _register_folder(self, name: str) -> str:
        """Insert a row for a complete version folder that the table lacks; return why it is not a version, or ""."""
        path = self.settings.encoders / name
        try:
            if not is_version_id(name):
                return "its name is not the id of a version"
            # Under the lock: a version that is being pruned has left the table, and its folder is removed next.
            with self.folder_lock():
                if not os.path.lexists(path):
                    return ""
                if self.published(name).exists():
                    shutil.rmtree(path)
                    self.published(name).unlink()
                    return "unknown"
                manifest = read_manifest(path)
                if manifest.id != name:
                    return f"its manifest is that of {manifest.id}"
                self._publish(manifest)
        except EncoderError as error:
            return error.problem
        except (OSError, ValueError) as error:
            return f"it cannot be read: {error}"
        return ""


def _order(id: str) -> tuple[int, str]:
    return len(id), id


def _number(id: str) -> int:
    return int(id[1:].partition("-")[0])


def _printable(name: str) -> str:
    """Return a name from the disk as text that can be encoded."""
    return name.encode("utf-8", "backslashreplace").decode()
