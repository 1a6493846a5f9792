"""Pruning: encoder versions that are no longer needed, and folders left over by killed processes."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from hins_memory.errors import ConfigError, EncoderError
from hins_memory.registry.http_versions import HttpVersions
from hins_memory.registry.onnx_exports import OnnxExports
from hins_memory.registry.registry import EncoderVersion, Registry

__all__ = ["PruneReport", "folder_bytes", "prune", "remove_version"]

logger = logging.getLogger(__name__)

_PRUNED = ".pruned-"
# Folders of killed trainings, moves and imports. A running one touches its folder all the time.
_LEFT_OVER = (".training-*", ".incoming-*", ".import-*")
_LEFT_OVER_SECONDS = 7 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class PruneReport:
    """What pruning removed, or with a dry run would remove.

    Attributes:
        removed: the ids of the versions, oldest first.
        kept: version -> why it was kept, oldest first.
        left_over: names of folders that no version is in.
        bytes: how much disk that freed.
        dry_run: whether nothing was removed.
    """

    removed: tuple[str, ...]
    kept: dict[str, str]
    left_over: tuple[str, ...]
    bytes: int
    dry_run: bool


def prune(registry: Registry, keep: int = 3, *, dry_run: bool = False) -> PruneReport:
    """Remove the encoder versions that nothing needs.

    Kept are the current version and the one that it came from, every version that an agent has an index of (what
    serves, what a rollback returns to, what a swap is building, what is not dropped yet), what serves or served single
    scopes and the newest of each, what clients of `hins serve` asked for and was not released, and the `keep` newest of
    the others.
    After a kill, every version is either complete or gone.

    Args:
        registry: the project's registry.
        keep: how many of the newest to keep, at least 1.
        dry_run: only say what would be removed.

    Raises:
        ConfigError: `keep` is below 1.
    """
    if keep < 1:
        raise ConfigError(f"keep is {keep}.", "Keep at least the newest version.")
    versions = registry.versions()
    kept = _reasons(registry, versions, keep)
    obsolete = [version for version in versions if version.id not in kept]
    left = _left_over(registry.settings.encoders)
    size = sum(folder_bytes(version.path) for version in obsolete) + sum(folder_bytes(path) for path in left)
    removed: list[str] = []
    if not dry_run:
        for version in obsolete:
            try:
                _remove(registry, version)
                removed.append(version.id)
            except EncoderError as error:
                # An agent has begun to use it since the check.
                kept[version.id] = error.problem
                size -= folder_bytes(version.path)
        for path in (*left, *registry.settings.encoders.glob(f"{_PRUNED}*")):
            shutil.rmtree(path, ignore_errors=True)
        if registry.remote is not None:
            registry.remote.keep_only(registry.ids)
    names = tuple(version.id for version in obsolete) if dry_run else tuple(removed)
    order = {version.id: i for i, version in enumerate(versions)}
    kept = dict(sorted(kept.items(), key=lambda item: order[item[0]]))
    return PruneReport(names, kept, tuple(path.name for path in left), size, dry_run)


def folder_bytes(folder: Path) -> int:
    """Return how much the files of a folder hold; 0 if it is not there."""
    size = 0
    for path in folder.rglob("*"):
        # Another process may be removing it.
        with contextlib.suppress(OSError):
            size += path.lstat().st_size if path.is_file() else 0
    return size


def _reasons(registry: Registry, versions: Collection[EncoderVersion], keep: int) -> dict[str, str]:
    """Return {version: why it is kept}."""
    reasons: dict[str, str] = {}
    known = {version.id: version for version in versions}
    current = next((version for version in versions if version.id == registry.current_id()), None)
    if current is not None:
        reasons[current.id] = "current"
        for parent in (current.manifest.parent, current.manifest.base):
            if parent in known:
                reasons.setdefault(parent, f"{current.id} came from it")
    for record in registry.indexes():
        if record.version in known:
            reasons.setdefault(record.version, f"{record.state} index of {record.agent_key}")
    for id, reason in _outside(registry):
        if id in known:
            reasons.setdefault(id, reason)
    # The newest of a scope may not serve yet. Hundreds of scopes must not push out the common ones.
    newest = {one.manifest.scope: one.id for one in versions if one.manifest.scope}
    reasons |= {id: f"the newest of {scope}" for scope, id in newest.items() if id not in reasons}
    for version in [one for one in versions if not one.manifest.scope][-keep:]:
        reasons.setdefault(version.id, f"one of the {keep} newest")
    return reasons


def _outside(registry: Registry) -> Iterator[tuple[str, str]]:
    """Yield what single scopes, and clients of `hins serve`, need."""
    for scoped in registry.scoped_versions():
        yield scoped.version, f"made for {scoped.scope}"
        yield scoped.previous, f"made for {scoped.scope}"
    for id, released in HttpVersions(registry.settings).read().items():
        if not released:
            yield id, "asked for over HTTP; `hins encoders release` lets it go"


def remove_version(registry: Registry, version: EncoderVersion) -> None:
    """Remove a version from the registry, and its folder.

    Raises:
        EncoderError: it is needed, or its folder cannot be removed; it stays complete. Or the project's store cannot be
            changed.
    """
    _remove(registry, version)
    if registry.remote is not None:
        registry.remote.keep_only(registry.ids)


def _remove(registry: Registry, version: EncoderVersion) -> None:
    """Remove a version from the registry and this host; the store that all hosts share is cleared once, after all."""
    obsolete = version.path.with_name(f"{_PRUNED}{version.id}")
    # Under the lock of the folder, so that no other process registers it again.
    with registry.folder_lock():
        registry.remove(version.id)
        # Before the folder: after a kill the folder is found again, and both are removed by the next attempt.
        OnnxExports(registry.settings).remove(version.id)
        try:
            shutil.rmtree(obsolete, ignore_errors=True)
            if version.path.exists():
                os.rename(version.path, obsolete)
        except OSError as error:
            # It stays complete, and the next listing of versions registers it again.
            raise EncoderError(f"{version.path} could not be removed: {error}.") from error
        registry.published(version.id).unlink(missing_ok=True)
    shutil.rmtree(obsolete, ignore_errors=True)
    logger.info("Pruned the encoder version %s", version.id)


def _left_over(encoders: Path) -> list[Path]:
    """Return the folders that a killed process left, and that no process has touched for a week."""
    found = sorted(path for pattern in _LEFT_OVER for path in encoders.glob(pattern))
    return [*(path for path in found if _untouched(path)), *sorted(encoders.glob(f"{_PRUNED}*"))]


def _untouched(folder: Path) -> bool:
    try:
        latest = max(path.lstat().st_mtime for path in (folder, *folder.rglob("*")))
    except OSError:
        return False
    return time.time() - latest > _LEFT_OVER_SECONDS
