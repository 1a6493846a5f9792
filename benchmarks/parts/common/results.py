"""The result of a benchmark as JSON: figures, rows, settings and the versions that it depends on."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from parts.common.files import write_whole
from parts.common.screen import stage

__all__ = ["code_versions", "write_result"]

_PACKAGES = (
    "hins-memory",
    "mem0ai",
    "memoryos-pro",
    "sentence-transformers",
    "torch",
    "transformers",
    "numpy",
    "qdrant-client",
)


def write_result(
    path: Path | None,
    figures: Mapping[str, float],
    rows: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Return a benchmark's result, and write it as JSON where a path is given.

    Returns:
        ``{"figures": {name: number}, "rows": [...], "settings": {...}, "versions": {...}}``
    """
    result = {
        "figures": dict(figures),
        "rows": [dict(row) for row in rows],
        "settings": {name: _plain(value) for name, value in settings.items()},
        "versions": _versions(),
    }
    if path is not None:
        text = json.dumps(result, indent=2, ensure_ascii=False, allow_nan=False)
        write_whole(path, text.encode())
        stage(f"result written to {path}")
    return result


def _plain(value: Any) -> Any:
    # The name alone: results are published, and where a file lay says something of the machine.
    return value.name if isinstance(value, Path) else value


def code_versions() -> dict[str, str]:
    """Return the versions of the packages that a result depends on."""
    versions = _versions()
    versions.pop("machine", None)
    return versions


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "machine": platform.machine()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions
