"""Which versions serve single scopes in the place of the common one; each was made from that scope's traffic alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from hins_memory.database.tables import agent_indexes, encoder_versions, scoped_versions
from hins_memory.encoders.manifest import Promotion
from hins_memory.errors import SwapError
from hins_memory.registry.records import document_space, manifest_of, record_in_manifest
from hins_memory.registry.versions import VersionStore
from hins_memory.types import Scope, now

__all__ = ["ScopedVersion", "ScopedVersionStore", "nearest_version", "scope_using"]


@dataclass(frozen=True, slots=True)
class ScopedVersion:
    """What serves the searches of one scope.

    Attributes:
        scope: the key of the scope (`Scope.key`).
        version: the version; "" where the common one serves again.
        previous: what a rollback returns to; "" for the common one.
        serves: whether an agent of the project stores vectors that `version` searches; else the common one serves.
    """

    scope: str
    version: str
    previous: str
    serves: bool


class ScopedVersionStore(VersionStore):
    """A project's versions, with those that serve single scopes."""

    def scoped_versions(self) -> list[ScopedVersion]:
        """Return what serves each scope that has, or had, a version of its own, ordered by scope."""
        with self._snapshot() as connection:
            live = sa.select(agent_indexes.c.version).where(agent_indexes.c.state == "live")
            current = sa.select(encoder_versions.c.id).where(encoder_versions.c.current)
            spaces = {document_space(connection, one) for one in connection.execute(live.union(current)).scalars()}
            found = []
            for row in connection.execute(_columns().order_by(scoped_versions.c.scope)).all():
                serves = bool(row.version) and document_space(connection, row.version) in spaces
                found.append(ScopedVersion(row.scope, row.version, row.previous, serves))
            return found

    def versions_by_scope(self) -> dict[str, str]:
        """Return the version of each scope that has one, by the scope's key."""
        query = sa.select(scoped_versions.c.scope, scoped_versions.c.version).where(scoped_versions.c.version != "")
        with self._snapshot() as connection:
            return {row.scope: row.version for row in connection.execute(query)}

    def serve_scope(self, version: str) -> None:
        """Serve a scope with a version that was made for it, in the place of what serves it now; one transaction.

        Raises:
            SwapError: the version is not known, or was made for everyone.
        """
        with self._transaction() as connection:
            manifest = manifest_of(connection, version)
            if manifest is None or not manifest.scope:
                problem = "is not known" if manifest is None else "was made for everyone, not for one scope"
                raise SwapError(f"The encoder version {version} {problem}.", "Train one with --owner or --tenant.")
            before = _read(connection, manifest.scope)
            if before is None or before.version != version:
                _write(connection, manifest.scope, version, before.version if before is not None else "")
                record_in_manifest(connection, version, Promotion(time=now()))

    def roll_back_scope(self, scope: Scope) -> tuple[str, str]:
        """Exchange what serves a scope and what served it before; return both, "" standing for the common version.

        Raises:
            SwapError: the scope never had a version of its own.
        """
        with self._transaction() as connection:
            before = _known(connection, scope)
            _write(connection, scope.key, before.previous, before.version)
        return before.previous, before.version

    def retire_scope(self, scope: Scope) -> list[str]:
        """Have the common version serve a scope, without a way back; return the versions that are not needed any more.

        Raises:
            SwapError: the scope never had a version of its own.
        """
        with self._transaction() as connection:
            before = _known(connection, scope)
            connection.execute(sa.delete(scoped_versions).where(scoped_versions.c.scope == scope.key))
        return [version for version in (before.version, before.previous) if version]


def nearest_version(scope: Scope, versions: Mapping[str, str], in_space: Callable[[str], bool]) -> str:
    """Return the version of a scope, else of its user, else of its tenant; "" where none has one.

    Args:
        scope: of a search.
        versions: by the keys of scopes.
        in_space: says whether a version searches the vectors that are stored.
    """
    own = (versions.get(level.key, "") for level in scope.levels)
    return next((version for version in own if version and in_space(version)), "")


def scope_using(connection: sa.Connection, version: str) -> str | None:
    """Return the key of the scope that a version serves, or would serve after a rollback; None for neither."""
    uses = sa.or_(scoped_versions.c.version == version, scoped_versions.c.previous == version)
    found: str | None = connection.execute(sa.select(scoped_versions.c.scope).where(uses)).scalar()
    return found


def _columns() -> sa.Select[Any]:
    return sa.select(scoped_versions.c.scope, scoped_versions.c.version, scoped_versions.c.previous)


def _read(connection: sa.Connection, scope: str) -> sa.Row[Any] | None:
    return connection.execute(_columns().where(scoped_versions.c.scope == scope)).first()


def _known(connection: sa.Connection, scope: Scope) -> sa.Row[Any]:
    row = _read(connection, scope.key)
    if row is None:
        raise SwapError(f"{scope.key} never had an encoder of its own.", "`hins encoders list` shows who has one.")
    return row


def _write(connection: sa.Connection, scope: str, version: str, previous: str) -> None:
    connection.execute(sa.delete(scoped_versions).where(scoped_versions.c.scope == scope))
    row = {"scope": scope, "version": version, "previous": previous, "changed": now()}
    connection.execute(sa.insert(scoped_versions).values(**row))
