"""Encoder versions as one file: a ZIP archive of the plain sentence-transformers folder, with everything's digests.

The archive holds ``<id>/...`` (the folder with its manifest, as it is) and ``SHA256SUMS``, which `sha256sum -c` reads.
Nothing of an archive is trusted: it is unpacked beside the versions and becomes one only when all of it was checked.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import stat
import uuid
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from hins_memory.common.files import file_digest
from hins_memory.encoders.encoder import MANIFEST_NAME
from hins_memory.errors import EncoderError
from hins_memory.registry.folder import checked_files
from hins_memory.registry.versions import is_version_id

if TYPE_CHECKING:
    from hins_memory.registry.versions import EncoderVersion, VersionStore

__all__ = ["SUMS_NAME", "export_version", "import_version"]

#: The file of an archive that lists the SHA-256 of every other.
SUMS_NAME = "SHA256SUMS"

_CHUNK = 1 << 20
# What zipfile, zlib and readers of JSON raise on bytes that are not what they should be.
_MALFORMED = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, KeyError, TypeError, AttributeError, RuntimeError)
_DAMAGED = "Export the version again, or copy the file again."
# Weights hardly shrink, and whoever unpacks should not have to reckon with a file that grows.
_COMPRESSION = zipfile.ZIP_STORED
# A fixed time, the first that the format knows: the same version gives the same archive, byte for byte.
_TIME = (1980, 1, 1, 0, 0, 0)


def export_version(version: EncoderVersion, path: Path) -> str:
    """Write a version to an archive, whole or not at all.

    Args:
        version: the version.
        path: the file; one that is there is replaced.

    Returns:
        The SHA-256 of the file.

    Raises:
        EncoderError: the version's files are not what its manifest says, or the file cannot be written.
    """
    sums = _digests(version)
    half = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(half, "x", _COMPRESSION) as archive:
            lines = "".join(f"{digest}  {version.id}/{name}\n" for name, digest in sorted(sums.items()))
            archive.writestr(_entry(SUMS_NAME), lines)
            for name in sorted(sums):
                with (
                    (version.path / name).open("rb") as source,
                    archive.open(_entry(f"{version.id}/{name}"), "w", force_zip64=True) as target,
                ):
                    shutil.copyfileobj(source, target, _CHUNK)
        with half.open("rb") as stream:
            os.fsync(stream.fileno())
        digest = file_digest(half)
        half.replace(path)
    except OSError as error:
        raise EncoderError(f"{path} cannot be written: {error}.", "Name another file, or free space.") from error
    finally:
        with contextlib.suppress(OSError):
            half.unlink(missing_ok=True)
    return digest


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _TIME)
    entry.compress_type = _COMPRESSION
    entry.external_attr = (stat.S_IFREG | 0o644) << 16
    return entry


def _digests(version: EncoderVersion) -> dict[str, str]:
    """Return {relative path: SHA-256} of a version's files, the manifest's included, checked against the manifest."""
    found = checked_files(version.path)
    if found != dict(version.manifest.get("files", {})):
        raise EncoderError(
            f"The files of {version.id} are not what its manifest says.", "Restore the version or train it again."
        )
    return found | {MANIFEST_NAME: file_digest(version.path / MANIFEST_NAME)}


def import_version(path: Path, store: VersionStore) -> EncoderVersion:
    """Check an archive and make it a version of a project, under the id that it has.

    A kill at any moment leaves either no trace that counts, or the complete version. Importing a version that the
    project has already changes nothing.

    Args:
        path: the archive.
        store: the project's versions.

    Raises:
        EncoderError: the archive is damaged or incomplete, holds something else than an encoder version with
            safetensors weights, or another version of that id is there.
    """
    try:
        with zipfile.ZipFile(path) as archive, store.unpacking() as folder:
            id, sums = _contents(archive, path)
            known = _known(store, id, sums)
            if known is not None:
                return known
            _unpack(archive, id, sums, folder)
            _check(folder, id)
            return store.admit(folder)
    except OSError as error:
        raise EncoderError(f"{path} cannot be imported: {error}.", "Check the path, or free space.") from error
    except _MALFORMED as error:
        raise EncoderError(f"{path} is no archive of an encoder version, or damaged: {error}.", _DAMAGED) from error


def _contents(archive: zipfile.ZipFile, path: Path) -> tuple[str, dict[str, str]]:
    """Return the version's id and {path in the archive: SHA-256}, after a look at every name."""
    entries = archive.infolist()
    names = [entry.filename for entry in entries]
    for entry in entries:
        kind = stat.S_IFMT(entry.external_attr >> 16)
        parts = PurePosixPath(entry.filename).parts
        plain = kind in (0, stat.S_IFREG) and not entry.is_dir() and "\\" not in entry.filename
        if not plain or not parts or ".." in parts or parts[0] == "/" or ":" in parts[0]:
            raise EncoderError(f"{path} holds {entry.filename!r}, which no archive of a version does.", _DAMAGED)
    if SUMS_NAME not in names or len(set(names)) != len(names):
        raise EncoderError(f"{path} is no archive of an encoder version: {SUMS_NAME} is missing.", _DAMAGED)
    sums = _parse_sums(archive.read(SUMS_NAME).decode("utf-8"))
    folders = {PurePosixPath(name).parts[0] for name in sums}
    if len(folders) != 1 or not is_version_id(id := folders.pop()):
        raise EncoderError(f"{path} does not hold exactly one encoder version.", _DAMAGED)
    if extra := sorted(set(names) ^ {*sums, SUMS_NAME}):
        raise EncoderError(f"{path} and its {SUMS_NAME} differ in {', '.join(extra[:3])}.", _DAMAGED)
    return id, sums


def _parse_sums(text: str) -> dict[str, str]:
    rows = [line.split("  ", 1) for line in text.splitlines()]
    if not rows or any(len(row) != 2 or len(row[0]) != 64 for row in rows):
        raise ValueError(f"{SUMS_NAME} cannot be read")
    return {name: digest for digest, name in rows}


def _known(store: VersionStore, id: str, sums: Mapping[str, str]) -> EncoderVersion | None:
    """Return the version if the project has it already, with the same files."""
    for version in store.versions():
        if version.id == id and version.path.is_dir():
            files = {f"{id}/{name}": digest for name, digest in dict(version.manifest["files"]).items()}
            if files == {name: digest for name, digest in sums.items() if name != f"{id}/{MANIFEST_NAME}"}:
                return version
            raise EncoderError(
                f"There is another encoder version {id} with other files.", "Import it into another project."
            )
    return None


def _unpack(archive: zipfile.ZipFile, id: str, sums: Mapping[str, str], folder: Path) -> None:
    for name, wanted in sums.items():
        target = folder / name.removeprefix(f"{id}/")
        target.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        with archive.open(name) as source, target.open("xb") as stream:
            while chunk := source.read(_CHUNK):
                digest.update(chunk)
                stream.write(chunk)
        if digest.hexdigest() != wanted:
            raise EncoderError(f"{name} does not match its SHA-256 in {SUMS_NAME}.", _DAMAGED)


def _check(folder: Path, id: str) -> None:
    """Make sure that an unpacked folder is a version of that id which runs no code when it is loaded."""
    from safetensors import SafetensorError, safe_open

    files = checked_files(folder)
    if not (folder / MANIFEST_NAME).is_file():
        raise EncoderError(f"{MANIFEST_NAME} of {id} is missing.", _DAMAGED)
    content = json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))
    if not isinstance(content, dict) or content.get("id") != id or content.get("files") != files:
        raise EncoderError(f"The files of {id} are not what its manifest says.", _DAMAGED)
    if not isinstance(content.get("created"), (int, float)):
        raise EncoderError(f"The manifest of {id} does not say when it was made.", _DAMAGED)
    for name in files:
        if name.endswith(".safetensors"):
            try:
                with safe_open(folder / name, framework="numpy") as tensors:
                    tensors.keys()
            except SafetensorError as error:
                raise EncoderError(f"{name} is not a safetensors file: {error}.", _DAMAGED) from error
    foreign = sorted(type for type in _module_types(folder, files) if not type.startswith("sentence_transformers."))
    if foreign:
        raise EncoderError(
            f"{id} is made of {foreign[0]!r}, which is no module of sentence-transformers.",
            "Only encoders of stock modules are taken over, because others run code of their own.",
        )


def _module_types(folder: Path, files: Iterable[str]) -> set[str]:
    """Return the classes that sentence-transformers would import to load a folder, routers' inner ones included."""
    found: set[str] = set()
    for name in files:
        if PurePosixPath(name).name == "modules.json":
            modules: list[dict[str, Any]] = json.loads((folder / name).read_text(encoding="utf-8"))
            found.update(str(module["type"]) for module in modules)
        elif PurePosixPath(name).name == "router_config.json":
            routes = json.loads((folder / name).read_text(encoding="utf-8"))
            found.update(str(type) for type in routes.get("types", {}).values())
    return found
