"""The rows of encoder versions: the manifest as it was made, with the verdicts and promotions since."""

from __future__ import annotations

from dataclasses import replace

import sqlalchemy as sa

from hins_memory.common.strict_json import parse_json
from hins_memory.database.tables import encoder_versions
from hins_memory.encoders.manifest import MANIFEST_BYTES, GateVerdict, Manifest, Promotion
from hins_memory.errors import EncoderError, SwapError

__all__ = [
    "BROKEN_RECORD",
    "check_common",
    "document_space",
    "manifest_column",
    "manifest_of",
    "manifest_of_row",
    "record_in_manifest",
    "set_current",
]

#: What to do about a record that cannot be read.
BROKEN_RECORD = "Delete its row from the table encoder_versions: its folder, if it is complete, is registered again."

# At most this many verdicts and promotions of a version are kept.
_MAX_ENTRIES = 50


def manifest_column() -> sa.Cast[str]:
    """Return the column of the manifests as text."""
    # As text, so that a row with invalid JSON does not fail the whole query.
    return sa.cast(encoder_versions.c.manifest, sa.Text)


def manifest_of_row(id: str, text: str, created: float) -> Manifest:
    """Return the manifest of a row; what the columns say is taken from them where the text leaves it out."""
    values = parse_json(text.encode("utf-8", "surrogatepass"), limit=MANIFEST_BYTES)
    if not isinstance(values, dict):
        raise ValueError("it is not an object")
    manifest = Manifest.from_dict({"id": id, "created": created, **values})
    if manifest.id != id:
        raise ValueError(f"it is that of {manifest.id}")
    return manifest


def manifest_of(connection: sa.Connection, id: str) -> Manifest | None:
    """Return a version's manifest with what happened since; None if the table does not know it, or not any more.

    Raises:
        EncoderError: its record cannot be read.
    """
    query = sa.select(manifest_column(), encoder_versions.c.created).where(encoder_versions.c.id == id)
    row = connection.execute(query).first()
    try:
        return None if row is None else manifest_of_row(id, *row)
    except ValueError as error:
        raise EncoderError(f"The record of the encoder version {id} cannot be read: {error}.", BROKEN_RECORD) from error


def check_common(connection: sa.Connection, version: str) -> None:
    """Check that a version may serve everyone.

    Raises:
        SwapError: it was made from the traffic of one scope.
    """
    manifest = manifest_of(connection, version)
    if manifest is not None and manifest.scope:
        raise SwapError(
            f"{version} was made from the traffic of {manifest.scope} alone, and serves nothing else.",
            "Name the scope with --owner or --tenant, or use another version.",
        )


def document_space(connection: sa.Connection, version: str) -> str:
    """Return the name of the space of a version's document vectors; see `Registry.document_space`."""
    try:
        manifest = manifest_of(connection, version)
    except EncoderError:
        # No other version is known to share its vectors.
        return version
    return (manifest.document_space if manifest else "") or version


def set_current(connection: sa.Connection, version: str) -> None:
    """Make `version` the only current one; a version that is not in the table means the stock encoder."""
    connection.execute(sa.update(encoder_versions).values(current=encoder_versions.c.id == version))


def record_in_manifest(connection: sa.Connection, id: str, entry: GateVerdict | Promotion) -> None:
    """Append an entry to what the table keeps of a version's manifest; the folder's own never changes.

    Raises:
        EncoderError: the version's record cannot be read.
    """
    manifest = manifest_of(connection, id)
    if manifest is None:
        return
    if isinstance(entry, GateVerdict):
        manifest = replace(manifest, gates=(*manifest.gates, entry)[-_MAX_ENTRIES:])
    else:
        manifest = replace(manifest, promotions=(*manifest.promotions, entry)[-_MAX_ENTRIES:])
    values = manifest.to_dict()
    try:
        Manifest.from_dict(values)
    except ValueError as error:
        raise EncoderError(f"This cannot be recorded with {id}: {error}.") from error
    connection.execute(sa.update(encoder_versions).where(encoder_versions.c.id == id).values(manifest=values))
