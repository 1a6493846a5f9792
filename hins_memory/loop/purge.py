"""Removes a person from a project: from the log, from what was made of it, and by name from what it cannot reach."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import tempfile
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hins_memory.config import Settings
from hins_memory.database.engine import open_database
from hins_memory.errors import EncoderError, LogError
from hins_memory.log.capture import flush_all
from hins_memory.log.copies import known_copies, work_folder
from hins_memory.log.parquet import MANIFEST, remove_export
from hins_memory.log.purge import ERASE_SECONDS, PurgedRows, erase_traces, purge_rows
from hins_memory.loop.quality import quality_file
from hins_memory.loop.split import conversation_digest
from hins_memory.registry.prune import remove_version
from hins_memory.registry.registry import Registry
from hins_memory.types import Scope

if TYPE_CHECKING:
    import sqlalchemy as sa

__all__ = ["Left", "PurgeReport", "purge_person"]

_OWN_FOLDERS = ("encoders", "training", "locks", "synthesis")


@dataclass(frozen=True, slots=True)
class Left:
    """Something that may still hold texts of the person, or was made from them.

    Attributes:
        what: what it is.
        where: a path, the id of a version, or "" where there is no single place.
        advice: what to do about it.
    """

    what: str
    where: str
    advice: str


@dataclass(frozen=True, slots=True)
class PurgeReport:
    """What a purge did.

    Attributes:
        user: the person.
        tenant: their tenant; None stands for every tenant.
        removed: the number of rows by table.
        deleted: the files and folders that were deleted.
        left: what the purge does not reach, by name.
        problem: why copies of removed rows are still in the log's own files; "" when there are none.
    """

    user: str
    tenant: str | None
    removed: dict[str, int]
    deleted: tuple[str, ...]
    left: tuple[Left, ...]
    problem: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-able values; ``complete`` says whether the log itself is clean."""
        return {**asdict(self), "complete": not self.problem}


@dataclass(slots=True)
class _Purge:
    """One purge that runs: what it deleted, and what it found that it does not reach."""

    settings: Settings
    engine: sa.Engine
    deleted: list[str] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)

    def delete(self, path: Path) -> None:
        """Delete a file or a folder; what cannot be deleted is named."""
        try:
            if (path / MANIFEST).exists() or any(path.glob("*/part-*.parquet")):
                # An export may stand among other files.
                remove_export(str(path))
            elif path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
            self.deleted.append(str(path))
        except LogError as error:
            self.left.append(Left("an export that could not be deleted", str(path), f"Delete it: {error.problem}"))
        except OSError as error:
            self.left.append(Left("a file that could not be deleted", str(path), f"Delete it: {error.strerror}."))

    def judgement(self) -> None:
        """Delete the last judgement of recent searches, which holds the times of the person's."""
        if (path := quality_file(self.settings.root)).exists():
            self.delete(path)

    def trainings(self) -> None:
        from hins_memory.training import discard_runs

        runs = self.settings.training
        before = {path for path in runs.glob("*run-*") if path.is_dir()}
        discard_runs(runs)
        for path in sorted(before):
            if path.exists():
                advice = "Its folder goes when it ends; a training ends without a version, because the log was purged."
                self.left.append(Left("a training, mining or gate that runs now", str(path), advice))
            else:
                self.deleted.append(str(path))

    def copies(self, delete: bool) -> None:
        for copy in known_copies(self.settings.root):
            when = datetime.fromtimestamp(copy.time, tz=timezone.utc)
            what = f"a file that `{copy.kind}` wrote on {when:%Y-%m-%d %H:%M} UTC"
            if copy.remote:
                self.left.append(Left(what.replace("a file", "an export", 1), copy.path, "Delete it there."))
            work = work_folder(Path(copy.path))
            for path in copy.files():
                if path == work and _is_mining(path):
                    self.left.append(Left("a mining that runs now", str(path), "It ends without a file."))
                elif path == work or delete:
                    self.delete(path)
                else:
                    self.left.append(Left(what, str(path), "Delete it, or purge with --delete-copies."))

    def towers(self, user: str, tenant: str | None) -> None:
        """Delete the encoders that were made for the person alone."""
        registry = Registry(self.settings, self.engine)
        for one in registry.scoped_versions():
            if _is_person(Scope.from_key(one.scope), user, tenant):
                registry.retire_scope(Scope.from_key(one.scope))
        for version in registry.versions():
            if version.manifest.scope and _is_person(Scope.from_key(version.manifest.scope), user, tenant):
                try:
                    remove_version(registry, version)
                    self.deleted.append(str(version.path))
                except EncoderError as error:
                    self.left.append(Left("an encoder that was made for them alone", version.id, error.problem))

    def versions(self, rows: PurgedRows) -> None:
        owners = {owner for owner, _ in rows.conversations}
        gone = {conversation_digest(owner, conversation) for owner, conversation in rows.conversations}
        listing = Registry(self.settings, self.engine).listing()
        for id, problem in listing.unreadable.items():
            self.left.append(Left("an encoder version that cannot be read", id, f"Remove it: {problem}."))
        for version in listing.versions:
            scope = Scope.from_key(version.manifest.scope) if version.manifest.scope else None
            of_tenant = any(scope in owner.levels for owner in owners)
            if of_tenant or gone.intersection(version.manifest.trained_conversations):
                advice = "A version is not untrained: train and swap to a new one, then `hins encoders prune`."
                self.left.append(Left("an encoder version trained on their conversations", version.id, advice))

    def elsewhere(self, rows: PurgedRows) -> None:
        """Name what no purge of hins reaches."""
        found = self.left
        root = self.settings.root
        if rows.unowned:
            what = f"{rows.unowned} turns and memories that were recorded without a user"
            found.append(Left(what, "the log", "It is not known whose they are; see `hins log show`."))
        replies = root / "synthesis" / "replies"
        if replies.is_dir():
            advice = "They answer prompts of personas, not of the log; delete the folder if a persona was this person."
            found.append(Left("kept replies of a language model", str(replies), advice))
        folders = [path for path in sorted(root.glob("*")) if path.is_dir() and path.name not in _OWN_FOLDERS]
        advice = "Delete the memories in the agent (Mem0: delete_all(user_id=...)), else searches record them again."
        where = ", ".join(map(str, folders))
        found.append(Left("the agent's own store, where it is kept and wherever it was copied", where, advice))
        for path in sorted(Path(tempfile.gettempdir()).glob("hins-vectors-*")):
            found.append(Left("vectors of a mining that runs or was killed", str(path), "Delete it when none runs."))
        if self.engine.dialect.name == "sqlite":
            what, advice = "backups and snapshots of the log", "Let them expire, or delete them."
        else:
            what = "dead rows, write-ahead log, replicas and backups of PostgreSQL"
            advice = "VACUUM FULL rewrites the tables; archived WAL and backups have to expire."
        found.append(Left(what, "", advice))
        advice = "Delete them where they are. Their texts are of the log; archives hold weights only."
        found.append(Left("files that were copied or sent elsewhere, exported archives of versions", "", advice))


def purge_person(
    settings: Settings, user: str, tenant: str | None = None, *, delete_copies: bool = False
) -> PurgeReport:
    """Remove a person from a project's log and from what was made of it.

    Rows go as `hins_memory.log.purge.purge_rows` says, and every trace of them in the log's own files. Trainings that
    were cut and minings that were killed are deleted; those that run end without a result. The report names the rest.

    Args:
        settings: the project.
        user: whose records.
        tenant: only those of this tenant, "" for records without one; None means every tenant.
        delete_copies: delete the files that commands were told to write texts of the log to (exports, mined examples,
            reports of the gate), and not only name them. They hold other people's texts too.

    Raises:
        LogError: `user` is empty, or the log cannot be written; nothing was removed.
    """
    flush_all()
    engine = open_database(settings.database_url)
    rows = purge_rows(engine, user, tenant)
    purge = _Purge(settings, engine)
    problem = ""
    try:
        erase_traces(engine, ERASE_SECONDS)
    except LogError as error:
        problem = str(error)
        purge.left.append(Left("copies of the removed rows", "the log's own files", problem))
    purge.judgement()
    purge.trainings()
    purge.copies(delete_copies)
    purge.towers(user, tenant)
    purge.versions(rows)
    purge.elsewhere(rows)
    return PurgeReport(user, tenant, rows.removed, tuple(purge.deleted), tuple(purge.left), problem)


def _is_person(scope: Scope, user: str, tenant: str | None) -> bool:
    return scope.user == user and tenant in (None, scope.tenant)


def _is_mining(work: Path) -> bool:
    """Return whether a process holds a mining's work folder: it keeps its databases locked."""
    for path in (work / "evidence.db", work / "journal.db"):
        if not path.is_file():
            continue
        with contextlib.closing(sqlite3.connect(path, timeout=0.0, isolation_level=None)) as database:
            try:
                database.execute("BEGIN EXCLUSIVE")
                database.execute("ROLLBACK")
            except sqlite3.OperationalError:
                return True
            except sqlite3.DatabaseError:
                # No database: what a kill left.
                continue
    return False
