"""How an agent object is attached: the options that every adapter takes, checked in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from hins_memory.common.files import keep_private
from hins_memory.config import Settings
from hins_memory.errors import ConfigError

__all__ = ["AttachOptions", "check_embedder", "settings_for"]


def check_embedder(embedder: str | None) -> None:
    """Raise a `ConfigError` unless `embedder` is one of the known names or None."""
    if embedder not in ("hins", "stock", None):
        raise ConfigError(
            f"{embedder!r} is not an embedder.",
            'Use "hins" (the project\'s encoder), "stock" (the plain base) or None (the framework\'s own).',
        )


def settings_for(settings: Settings | None, project: str | None) -> Settings:
    """Return the settings given, or those of the environment, for a project if one is named; its folder is private."""
    settings = settings or Settings()
    chosen = settings if project is None else replace(settings, project=project)
    keep_private(chosen.root)
    return chosen


@dataclass(frozen=True)
class AttachOptions:
    """How to attach to an agent object.

    Args:
        embedder: None keeps the framework's embedder, unless its store was swapped to hins before; then the
            encoder of that swap is used. ``hins`` is the project's encoder, ``stock`` the plain base.
        reembed: with an embedder, re-embed what another encoder stored.
        capture: whether calls are recorded.
        project: the project's name.
        settings: where things live; the environment's settings by default.
        model: a sentence-transformers folder or name to start from.

    Raises:
        ConfigError: the embedder is not known.
    """

    embedder: str | None = None
    reembed: bool = False
    capture: bool = True
    project: str | None = None
    settings: Settings | None = None
    model: str | Path | None = None

    def __post_init__(self) -> None:
        check_embedder(self.embedder)

    @classmethod
    def of(cls, framework: str, options: Mapping[str, Any]) -> AttachOptions:
        """Return options that were given by name.

        Raises:
            ConfigError: one of them is not known.
        """
        known = {field.name for field in fields(cls)}
        if unknown := set(options) - known:
            raise ConfigError(
                f"{framework} objects are not attached with {', '.join(sorted(unknown))}.",
                f"Use {', '.join(sorted(known))}.",
            )
        return cls(**options)

    @property
    def resolved_settings(self) -> Settings:
        """The settings in force."""
        return settings_for(self.settings, self.project)
