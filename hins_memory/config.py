"""Where things live on disk and how capture behaves: settings, read and validated once at the edge."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from hins_memory.errors import ConfigError

__all__ = ["Settings"]

_PROJECT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def _default_home() -> Path:
    return Path(os.environ.get("HINS_HOME") or "~/.hins").expanduser()


def _default_project() -> str:
    return os.environ.get("HINS_PROJECT") or "default"


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one project.

    Args:
        home: the root folder of all projects (environment: ``HINS_HOME``, default ``~/.hins``).
        project: the project's name, a folder under `home` (environment: ``HINS_PROJECT``, default ``default``).
        log_url: SQLAlchemy URL of the interaction log; empty means SQLite under the project's folder
            (environment: ``HINS_LOG_URL``).
        capture: whether interactions are recorded at all (environment: ``HINS_CAPTURE=0`` turns it off).
        queue_size: how many retrievals may wait for the writer before the oldest are dropped.
        queue_bytes: how many bytes of events may wait; see `Capture`.
        flush_seconds: how long the writer may collect events before it commits them; under one second.

    Raises:
        ConfigError: a value is out of range or the project's name is not a safe folder name.
    """

    home: Path = field(default_factory=_default_home)
    project: str = field(default_factory=_default_project)
    # Not shown: it may hold a password.
    log_url: str = field(default_factory=lambda: os.environ.get("HINS_LOG_URL", ""), repr=False)
    capture: bool = field(default_factory=lambda: os.environ.get("HINS_CAPTURE", "1") not in ("0", "false", "no"))
    queue_size: int = 10_000
    queue_bytes: int = 128 * 2**20
    flush_seconds: float = 0.2

    def __post_init__(self) -> None:
        object.__setattr__(self, "home", Path(self.home).expanduser())
        if not _PROJECT_NAME.fullmatch(self.project):
            raise ConfigError(
                f"{self.project!r} is not a project name.",
                "Use letters, digits, '.', '_' and '-', at most 64, starting with a letter or digit.",
            )
        if self.queue_size < 1:
            raise ConfigError(f"queue_size is {self.queue_size}.", "Use at least 1.")
        if self.queue_bytes < 1:
            raise ConfigError(f"queue_bytes is {self.queue_bytes}.", "Use at least 1.")
        if not 0 < self.flush_seconds < 1:
            raise ConfigError(f"flush_seconds is {self.flush_seconds}.", "Use a value between 0 and 1 second.")

    @property
    def root(self) -> Path:
        """The project's own folder."""
        return self.home / self.project

    @property
    def database_url(self) -> str:
        """SQLAlchemy URL of the log and the registry."""
        if self.log_url:
            return self.log_url
        from sqlalchemy import URL

        # Not by hand: the path may hold characters that mean something in a URL.
        return URL.create("sqlite", database=str(self.root / "log.db")).render_as_string()

    @property
    def encoders(self) -> Path:
        """The folder of the project's encoder versions."""
        return self.root / "encoders"

    @property
    def training(self) -> Path:
        """The folder of trainings that are not finished."""
        return self.root / "training"

    def agent_folder(self, name: str) -> Path:
        """Return the folder that an agent's own stores live under by default."""
        return self.root / name
