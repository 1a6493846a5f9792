"""Which versions clients of `hins serve` asked for: their stores hold vectors of them until a release."""

from __future__ import annotations

import sqlalchemy as sa

from hins_memory.config import Settings
from hins_memory.database.engine import database_errors, open_database, reading
from hins_memory.database.tables import http_versions
from hins_memory.types import now

__all__ = ["HttpVersions"]


class HttpVersions:
    """The versions that were asked for over HTTP. Safe with several threads, processes and hosts.

    Args:
        settings: the project.

    Raises:
        LogError: the project's database cannot be opened.
    """

    def __init__(self, settings: Settings) -> None:
        self._engine = open_database(settings.database_url)

    def note(self, version: str) -> None:
        """Note that a client asked for a version; one that is noted already, or released, is left as it is."""
        self._write(version, None)

    def release(self, version: str) -> None:
        """Say that no store outside of hins holds vectors of a version any more: it is not served over HTTP then."""
        self._write(version, now(), change=True)

    def restore(self, version: str) -> None:
        """Take a release back."""
        self._write(version, None, change=True)

    def read(self) -> dict[str, bool]:
        """Return the versions that were asked for, each with whether it was released."""
        with database_errors(self._engine.url), reading(self._engine).connect() as connection:
            rows = connection.execute(sa.select(http_versions.c.version, http_versions.c.released)).all()
        return {row.version: row.released is not None for row in rows}

    def _write(self, version: str, released: float | None, *, change: bool = False) -> None:
        this = http_versions.c.version == version
        with database_errors(self._engine.url):
            try:
                with self._engine.begin() as connection:
                    if connection.execute(sa.select(http_versions.c.version).where(this)).first() is None:
                        row = {"version": version, "first_used": now(), "released": released}
                        connection.execute(sa.insert(http_versions).values(**row))
                        return
            except sa.exc.IntegrityError:
                # Another process inserted it meanwhile.
                pass
            if change:
                with self._engine.begin() as connection:
                    connection.execute(sa.update(http_versions).where(this).values(released=released))
