"""`hins encoders list|show|diff|export|import|release|prune`: the project's encoder versions, and their export."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hins_memory.cli.options import settings_of
from hins_memory.cli.screen import Bars, Part, Result, command, table
from hins_memory.common.printable import moment
from hins_memory.config import Settings
from hins_memory.errors import ConfigError

if TYPE_CHECKING:
    from hins_memory.encoders.manifest import DataSummary, GateVerdict, Manifest, TrainingMetrics
    from hins_memory.registry.registry import EncoderVersion, Registry

__all__ = ["encoders"]

encoders = typer.Typer(help="List, compare, hand on and remove encoder versions.", no_args_is_help=True)

_STOCK = "stock"
_Version = Annotated[str, typer.Argument(metavar="VERSION", help="The encoder version.")]


@encoders.command(name="list")
@command
def list_(
    context: typer.Context,
    all_projects: Annotated[bool, typer.Option("--all-projects", help="Those of every project of the home.")] = False,
) -> Result:
    """List the versions, oldest first, with what they were made from and which agents use them."""
    settings = settings_of(context)
    projects = list(_projects(settings)) if all_projects else [settings]
    found = [(project.project, *_described(project)) for project in projects]
    rows = [(project, row) for project, described, _ in found for row in described]
    broken = [(project, name, reason) for project, _, unreadable in found for name, reason in unreadable.items()]
    data = {
        "versions": [{"project": project, **row} for project, row in rows],
        "unreadable": [{"project": project, "name": name, "reason": reason} for project, name, reason in broken],
    }
    below = (table(("project", "cannot be read", "because"), broken),) if broken else ()
    if not rows:
        return Result(data, ("There is no encoder version yet: `hins train` makes one.", *below))
    columns: tuple[str, ...] = ("version", "made (UTC)", "mode", "base", "examples", "MiB", "serves", "notes")
    cells = [_cells(row) for _, row in rows]
    if all_projects:
        columns, cells = ("project", *columns), [(project, *_cells(row)) for project, row in rows]
    return Result(data, (table(columns, cells), *below))


def _projects(settings: Settings) -> Iterator[Settings]:
    """Yield every project of the home folder that has a database of its own."""
    if settings.log_url:
        raise ConfigError(
            "With HINS_LOG_URL the projects of a home are not told apart.", "Leave out --all-projects, or unset it."
        )
    for path in sorted(settings.home.glob("*/log.db")):
        yield replace(settings, project=path.parent.name)


def _described(settings: Settings) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Return what the list shows of a project's versions, and why others cannot be read."""
    from hins_memory.registry.prune import folder_bytes
    from hins_memory.registry.registry import Registry

    registry = Registry(settings)
    current, indexes, listing = registry.current_id(), registry.indexes(), registry.listing()
    serving = {one.version for one in registry.scoped_versions() if one.serves}
    rows = [
        {
            "id": version.id,
            "path": version.path,
            "created": version.manifest.created,
            "mode": version.manifest.mode,
            "base": version.manifest.base,
            "examples": version.manifest.data.examples or None,
            "bytes": folder_bytes(version.path),
            "missing": not version.path.is_dir(),
            "current": version.id == current,
            "scope": version.manifest.scope,
            "serves_scope": version.id in serving,
            "agents": [{"agent": one.agent_key, "state": one.state} for one in indexes if one.version == version.id],
            "forced": any(one.forced for one in version.manifest.promotions),
        }
        for version in listing.versions
    ]
    return rows, listing.unreadable


def _cells(row: Mapping[str, Any]) -> tuple[Any, ...]:
    serving = sum(one["state"] == "live" for one in row["agents"])
    notes = [
        *(["current"] if row["current"] else []),
        *(["forced past the gate"] if row["forced"] else []),
        *([f"for {row['scope']} alone"] if row["scope"] else []),
        *(["folder missing on this host"] if row["missing"] else []),
        *(["kept for rollback"] if any(one["state"] == "previous" for one in row["agents"]) else []),
    ]
    return (
        row["id"],
        _when(row["created"]),
        row["mode"],
        row["base"],
        row["examples"],
        row["bytes"] / 2**20,
        f"{serving} agents" if serving else row["scope"] if row["serves_scope"] else None,
        ", ".join(notes),
    )


def _when(time: object) -> str | None:
    return None if time is None else moment(time, seconds=False)


@encoders.command()
@command
def show(context: typer.Context, version: _Version) -> Result:
    """Show a version: what it was made from, what it measured, what the gate said, which agents use it."""
    registry = _registry(context)
    found = registry.get(version)
    users = [asdict(one) for one in registry.indexes() if one.version == found.id]
    current = found.id == registry.current_id()
    data = {
        "id": found.id,
        "path": found.path,
        "current": current,
        "agents": users,
        "manifest": found.manifest.to_dict(),
    }
    return Result(data, tuple(_shown(found, current, users)))


def _shown(version: EncoderVersion, current: bool, users: list[dict[str, Any]]) -> Iterator[Part]:
    manifest = version.manifest
    yield table(
        ("", ""),
        [
            ("version", f"{version.id}{' (current)' if current else ''}"),
            ("folder", version.path),
            ("made (UTC)", _when(manifest.created)),
            ("base", manifest.base),
            ("mode", manifest.mode),
            *([("for", f"{manifest.scope} alone")] if manifest.scope else []),
            *([] if manifest.keyword_weight is None else [("keyword weight", f"{manifest.keyword_weight:g}")]),
            ("files", len(manifest.files)),
            *((f"data: {name}", value) for name, value in _short(manifest.data)),
            *((f"metrics: {name}", value) for name, value in _short(manifest.metrics)),
        ],
    )
    if manifest.gates:
        rows = [(_when(one.time), _verdict(one), one.incumbent, ", ".join(one.failures)) for one in manifest.gates]
        yield table(("gate (UTC)", "verdict", "against", "rules that refused"), rows)
    if manifest.promotions:
        served = [(_when(one.time), one.agent, "by force" if one.forced else "") for one in manifest.promotions]
        yield table(("served from (UTC)", "agent", ""), served)
    if users:
        yield table(
            ("agent", "index", "collections' suffix"), [(u["agent_key"], u["state"], u["suffix"]) for u in users]
        )


def _verdict(gate: GateVerdict) -> str:
    passed = {True: "passed", False: "refused", None: "not asked"}[gate.passed]
    return f"{passed}, forced" if gate.forced else passed


def _short(group: DataSummary | TrainingMetrics) -> list[tuple[str, Any]]:
    """Return the values of a group that are known and fit into a table's cell."""
    return [(name, value) for name, value in asdict(group).items() if value and len(str(value)) <= 100]


@encoders.command()
@command
def diff(
    context: typer.Context,
    version: _Version,
    against: Annotated[
        str | None, typer.Argument(metavar="[AGAINST]", help="The version, or stock; if left out the current one.")
    ] = None,
) -> Result:
    """Show what a version differs in from another: settings, training data, metrics, weights of each module."""
    from hins_memory.registry.diff import diff_versions

    registry = _registry(context)
    found = registry.get(version)
    against = against or registry.current_id() or _STOCK
    folder, manifest = _folder(registry, against)
    report = diff_versions(folder, found.path, (manifest, found.manifest))
    values = {name: {"before": pair[0], "after": pair[1]} for name, pair in report.values.items()}
    data = {
        "version": found.id,
        "against": against,
        "values": values,
        "modules": [asdict(one) for one in report.modules],
    }
    changes = [
        (one.module, one.parameters, one.before, one.after, _percent(one.change, one.before)) for one in report.modules
    ]
    return Result(
        data,
        (
            table(("", against, found.id), [(name, *map(_text, pair)) for name, pair in report.values.items()]),
            table(("module", "weights", "norm before", "norm after", "changed %"), changes),
        ),
    )


def _folder(registry: Registry, name: str) -> tuple[Path, Manifest | None]:
    from hins_memory.encoders.encoder import resolve_model

    if name == _STOCK:
        return Path(resolve_model(name)), None
    version = registry.get(name)
    return version.path, version.manifest


def _percent(change: float | None, norm: float | None) -> float | None:
    return 100 * change / norm if change is not None and norm else None


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


@encoders.command()
@command
def export(
    context: typer.Context,
    version: _Version,
    output: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="FILE.zip; one that is there is replaced.")
    ] = None,
    delta: Annotated[
        bool, typer.Option("--delta", help="Of a tower only what it adds to its base, as FILE.safetensors.")
    ] = False,
    onnx: Annotated[
        bool, typer.Option("--onnx", help="As an ONNX graph that `hins serve` uses; kept by the project, without FILE.")
    ] = False,
    int8: Annotated[
        bool,
        typer.Option("--int8", help="With --onnx: queries in 8 bits, if they find as much on the log's held-out part."),
    ] = False,
) -> Result:
    """Write a version to one file, with its manifest and the digests of everything; or as an ONNX graph."""
    if onnx or int8:
        return _export_onnx(context, version, int8, onnx and not delta and output is None)
    if output is None:
        raise ConfigError("Where to?", "Name a FILE.zip, or use --onnx.")
    from hins_memory.registry.archive import export_version
    from hins_memory.registry.delta import DELTA_SUFFIX, export_delta
    from hins_memory.registry.loader import EncoderSource

    registry = _registry(context)
    found = registry.get(version)
    if delta != (output.suffix == DELTA_SUFFIX):
        raise ConfigError(
            f"{output}: the file of a delta, and of nothing else, ends in {DELTA_SUFFIX}.", "Name another file."
        )
    digest = export_delta(found, output, EncoderSource(registry)) if delta else export_version(found, output)
    size = output.stat().st_size
    text = f"{found.id} written to {output} ({size / 2**20:.1f} MiB, SHA-256 {digest})."
    return Result({"version": found.id, "path": output, "bytes": size, "sha256": digest}, (text,))


def _export_onnx(context: typer.Context, version: str, int8: bool, valid: bool) -> Result:
    from hins_memory.loop.onnx import export_onnx

    if not valid:
        raise ConfigError("An ONNX export takes no FILE and no --delta.", "Use --onnx, or --onnx --int8.")
    with Bars() as bars:
        made = export_onnx(settings_of(context), version, int8=int8, progress=bars)
    record = made.record
    size = sum(one.stat().st_size for one in made.path.iterdir())
    lines = [f"{record.version} in {made.path} ({size / 2**20:.1f} MiB, {record.precision}): `hins serve` uses it."]
    if (found := record.fidelity) is not None and found.before is not None and found.after is not None:
        lines.append(
            f"nDCG@10 {100 * found.before:.2f} to {100 * found.after:.2f} on {found.queries} held-out queries; cosines "
            f"to the encoder's own queries: mean {found.mean_cosine:.4f}, least {found.least_cosine:.4f}."
        )
    return Result({"path": made.path, "bytes": size, **record.to_dict()}, tuple(lines))


@encoders.command(name="import")
@command
def import_(
    context: typer.Context,
    archive: Annotated[Path, typer.Argument(metavar="FILE", help="What `hins encoders export` wrote.")],
) -> Result:
    """Take over a version from a file, after checking every digest; safetensors only. Nothing serves with it yet."""
    from hins_memory.registry.archive import import_version
    from hins_memory.registry.delta import DELTA_SUFFIX, import_delta
    from hins_memory.registry.loader import EncoderSource

    registry = _registry(context)
    if archive.suffix == DELTA_SUFFIX:
        found = import_delta(archive, registry, EncoderSource(registry))
    else:
        found = import_version(archive, registry)
    data = {"version": found.id, "path": found.path, "manifest": found.manifest.to_dict()}
    return Result(data, (f"{found.id} is in {found.path}.", "Next: `hins gate` judges it, `hins swap` serves with it."))


@encoders.command()
@command
def release(
    context: typer.Context,
    version: _Version,
    undo: Annotated[bool, typer.Option("--undo", help="Serve it over HTTP again.")] = False,
) -> Result:
    """Say that no store of a client of `hins serve` holds vectors of a version: it is not served, nor kept for that."""
    from hins_memory.registry.http_versions import HttpVersions

    registry = _registry(context)
    if version not in registry.ids():
        # For its message, which names those that there are; a version without a folder can be released.
        registry.get(version)
    asked = HttpVersions(registry.settings)
    if undo:
        asked.restore(version)
        text = f"{version} is served over HTTP, and kept."
    else:
        asked.release(version)
        text = f"{version} is not served over HTTP any more, within a second. `hins encoders prune` may remove it."
    return Result({"version": version, "released": not undo}, (text,))


@encoders.command()
@command
def prune(
    context: typer.Context,
    keep: Annotated[int, typer.Option("--keep", help="How many of the newest versions stay in any case.")] = 3,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
) -> Result:
    """Remove versions that nothing needs: not current, used by no agent nor client, nor needed for a rollback."""
    from hins_memory.registry.prune import prune as prune_versions

    report = prune_versions(_registry(context), keep, dry_run=dry_run)
    names = ", ".join((*report.removed, *report.left_over)) or "nothing"
    verb = "Would remove" if dry_run else "Removed"
    return Result(
        asdict(report),
        (
            f"{verb} {names} ({report.bytes / 2**20:.1f} MiB).",
            table(("kept", "because"), report.kept.items()),
        ),
    )


def _registry(context: typer.Context) -> Registry:
    from hins_memory.registry.registry import Registry

    return Registry(settings_of(context))
