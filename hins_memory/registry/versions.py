"""A project's immutable encoder versions: taken over, found, made current, and what is recorded of them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from hins_memory.common.files import file_lock
from hins_memory.config import Settings
from hins_memory.database.engine import database_errors, open_database, reading
from hins_memory.database.tables import encoder_versions
from hins_memory.encoders.encoder import MANIFEST_NAME
from hins_memory.errors import EncoderError
from hins_memory.registry.folder import checked_files, move_durably
from hins_memory.types import now

__all__ = ["EncoderVersion", "VersionStore", "is_version_id", "record_in_manifest", "set_current"]

logger = logging.getLogger(__name__)

# So many verdicts and promotions of a version are kept.
_ENTRIES = 50
_UNPACKING = ".import-"
_VERSION_ID = re.compile(r"v(\d{4,})-[0-9a-f]{8}")


def is_version_id(name: str) -> bool:
    """Tell whether a name has the form of a version's id, e.g. ``v0001-0123abcd``."""
    return _VERSION_ID.fullmatch(name) is not None


@dataclass(frozen=True, slots=True)
class EncoderVersion:
    """One immutable encoder version: its id, its sentence-transformers folder, and what its manifest says.

    `manifest` is the one in the folder and, beside it, what happened since: ``gates`` and ``promotions``.
    """

    id: str
    path: Path
    manifest: Mapping[str, Any]


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
        with self.folder_lock():
            number = 1 + max(self._numbers(), default=0)
            content["id"] = f"v{number:04}-{hashlib.sha256(identity).hexdigest()[:8]}"
            content.setdefault("created", now())
            content["files"] = files
            target = self._move(folder, content["id"], json.dumps(content, indent=2, ensure_ascii=False))
            self._insert(content)
        logger.info("Added the encoder version %s", content["id"])
        return EncoderVersion(content["id"], target, content)

    def admit(self, folder: Path) -> EncoderVersion:
        """Take over a finished version folder from elsewhere as it is, under the id that its manifest says.

        The folder is moved, as by `add`. Its files must have been compared with the manifest's digests before.

        Raises:
            EncoderError: there is another version of that id, or the folder cannot be moved.
        """
        manifest = (folder / MANIFEST_NAME).read_text(encoding="utf-8")
        content = json.loads(manifest)
        id = str(content["id"])
        with self.folder_lock():
            known = self._select(encoder_versions.c.id == id)
            if known and known[0].manifest.get("files") != content["files"]:
                raise EncoderError(
                    f"There is another encoder version {id} with other files.", "Import it into another project."
                )
            target = self.settings.encoders / id
            if target.exists():
                raise EncoderError(f"The encoder version {id} is there already.", "Nothing is to be done.")
            self._move(folder, id, manifest)
            self._insert(content)
        return self.get(id)

    def _move(self, folder: Path, id: str, manifest: str) -> Path:
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
                "If another host has it, `hins encoders export` there and `hins encoders import` here; else restore "
                "it from a backup or train again.",
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
        """Return the version that new agents start with, or None while nothing was promoted.

        Raises:
            EncoderError: its folder is missing.
        """
        id = self.current_id()
        return self.get(id) if id else None

    def current_id(self) -> str:
        """Return the id of the current version, whether its folder is there or not; "" while nothing was promoted."""
        found = self._select(encoder_versions.c.current)
        return found[0].id if found else ""

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
            set_current(connection, id)
            record_in_manifest(connection, id, "promotions", {"time": now(), "forced": forced})
        logger.log(logging.WARNING if forced else logging.INFO, "Promoted %s%s", id, " by force" if forced else "")

    def record_gate(self, id: str, verdict: Mapping[str, Any]) -> None:
        """Keep a verdict of the gate on a version, or that it is about to be forced past, with the time.

        Args:
            id: the version; one that is not in the registry (the stock encoder) is left out.
            verdict: JSON values, e.g. ``{"passed": False, "forced": True, "failures": ["held_out_gain"]}``.
        """
        with self._transaction() as connection:
            record_in_manifest(connection, id, "gates", {"time": now(), **verdict})

    @contextlib.contextmanager
    def unpacking(self) -> Iterator[Path]:
        """Give a folder beside the versions to unpack one in; gone at the end, and at the next call after a kill."""
        with file_lock(self._locks / "import.lock"):
            # Whoever left one is not there any more, because the lock is ours.
            for left in self.settings.encoders.glob(f"{_UNPACKING}*"):
                shutil.rmtree(left, ignore_errors=True)
            folder = self.settings.encoders / f"{_UNPACKING}{uuid.uuid4().hex}"
            folder.mkdir(parents=True)
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def folder_lock(self) -> contextlib.AbstractContextManager[object]:
        """Return the lock of this host that is held while a version's folder is moved in or out."""
        return file_lock(self._locks / "encoders.lock")

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
        if not is_version_id(id) or not path.is_file():
            return False
        try:
            # Under the lock: a version that is being pruned has left the table, and its folder is about to go.
            with self.folder_lock():
                content = json.loads(path.read_text(encoding="utf-8"))
                if content["id"] != id:
                    raise ValueError(f"it is the manifest of {content['id']!r}")
                self._insert(content)
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("%s is not a version's manifest: %s", path, error)
            return False
        return True


def set_current(connection: sa.Connection, version: str) -> None:
    """Make `version` the only current one; a version that is not in the table means the stock encoder."""
    connection.execute(sa.update(encoder_versions).values(current=encoder_versions.c.id == version))


def record_in_manifest(connection: sa.Connection, id: str, name: str, entry: Mapping[str, Any]) -> None:
    """Append an entry to a list in what the table keeps of a version's manifest; the folder's own never changes."""
    this = encoder_versions.c.id == id
    row = connection.execute(sa.select(encoder_versions.c.manifest).where(this)).first()
    if row is not None:
        content = dict(row.manifest)
        content[name] = [*content.get(name, ()), dict(entry)][-_ENTRIES:]
        connection.execute(sa.update(encoder_versions).where(this).values(manifest=content))
