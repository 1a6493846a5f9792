"""Encoder versions as one file: a ZIP archive of the plain sentence-transformers folder, with everything's digests.

The archive holds ``<id>/...`` (the folder with its manifest, as it is) and ``SHA256SUMS``, which `sha256sum -c` reads.
An archive is not trusted: its names, sizes and digests are checked before a byte is written, it is unpacked beside the
versions, and becomes one after all of it was checked.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import shutil
import stat
import struct
import uuid
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hins_memory.common.files import file_digest
from hins_memory.encoders.contents import check_contents, check_kinds, file_names
from hins_memory.encoders.manifest import MANIFEST_BYTES, MANIFEST_NAME, Manifest, check_names, is_version_id
from hins_memory.errors import EncoderError

if TYPE_CHECKING:
    from hins_memory.registry.versions import EncoderVersion, VersionStore

__all__ = ["SUMS_NAME", "export_version", "import_version"]

#: The file of an archive that lists the SHA-256 of every other.
SUMS_NAME = "SHA256SUMS"

_CHUNK = 1 << 20
# The list of an archive's entries is read at once, and is far shorter for a version.
_MAX_READ = 4 << 20
# A version has 10 to 20 files, and a few hundred if its weights are in many parts.
_MAX_ENTRIES = 1000
_MAX_SUMS_BYTES = 1 << 20
# The largest encoders of the field have 8 billion weights; weights hardly shrink, vocabularies shrink to a quarter.
_MAX_BYTES = 64 << 30
_MAX_RATIO = 8
_EXTRA_BYTES = 1 << 20
# Bit 1 and 2: how hard deflate tried. Bit 3: sizes follow the data. Bit 11: names are UTF-8.
_PLAIN_FLAGS = 0x2 | 0x4 | 0x8 | 0x800
_SUM = re.compile(r"([0-9a-f]{64})  ([^\n]+)")
# What zipfile and zlib raise on bytes that are not what they should be; NotImplementedError is a RuntimeError.
_MALFORMED = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, KeyError, OverflowError, RuntimeError)
_DAMAGED = "Export the version again, or copy the file again."
# Compression hardly shrinks weights, and a stored archive unpacks to its own size.
_COMPRESSION = zipfile.ZIP_STORED
# A fixed time, the first that the format knows: the same version gives the same archive, byte for byte.
_TIME = (1980, 1, 1, 0, 0, 0)


def export_version(version: EncoderVersion, path: Path) -> str:
    """Write a version to an archive; on an error there is no archive.

    Args:
        version: the version.
        path: the file; one that is there is replaced.

    Returns:
        The SHA-256 of the file.

    Raises:
        EncoderError: the version's files are not what its manifest says, or the file cannot be written.
    """
    sums = _digests(version)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(temporary, "x", _COMPRESSION) as archive:
            lines = "".join(f"{digest}  {version.id}/{name}\n" for name, digest in sorted(sums.items()))
            archive.writestr(_entry(SUMS_NAME), lines)
            for name in sorted(sums):
                with (
                    (version.path / name).open("rb") as source,
                    archive.open(_entry(f"{version.id}/{name}"), "w", force_zip64=True) as target,
                ):
                    shutil.copyfileobj(source, target, _CHUNK)
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        digest = file_digest(temporary)
        temporary.replace(path)
    except OSError as error:
        raise EncoderError(f"{path} cannot be written: {error}.", "Name another file, or free space.") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return digest


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _TIME)
    entry.compress_type = _COMPRESSION
    entry.external_attr = (stat.S_IFREG | 0o644) << 16
    return entry


def _digests(version: EncoderVersion) -> dict[str, str]:
    """Return {relative path: SHA-256} of a version's files, the manifest's included, checked against the manifest."""
    try:
        found = {name: file_digest(version.path / name) for name in file_names(version.path)}
        manifest = file_digest(version.path / MANIFEST_NAME)
    except OSError as error:
        raise EncoderError(f"The files of {version.id} cannot be read: {error}.", "Restore the version.") from error
    if found != version.manifest.files:
        raise EncoderError(
            f"The files of {version.id} are not what its manifest says.", "Restore the version or train it again."
        )
    # An archive that `import_version` would refuse is not written.
    check_kinds(found, version.id)
    return found | {MANIFEST_NAME: manifest}


def import_version(path: Path, store: VersionStore) -> EncoderVersion:
    """Check an archive and make it a version of a project, under the id that it has.

    Names, sizes, digests and the manifest are checked before anything is written, and what is written stays in a folder
    of its own until all of it was checked. After a kill at any moment there is either the complete
    version or none. Importing a version that the project has already changes nothing.

    Args:
        path: the archive.
        store: the project's versions.

    Raises:
        EncoderError: the archive is damaged, incomplete or too large, does not hold an encoder version with
            safetensors weights, or another version of that id is there.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise EncoderError(f"{path} is not a plain file.", "Name the file that `hins encoders export` wrote.")
        with path.open("rb", buffering=0) as stream, zipfile.ZipFile(_Bounded(stream)) as archive:
            checked = _check_archive(archive, path.stat().st_size)
            known = store.check_new(checked.manifest)
            with store.unpacking() as folder:
                if known is not None and known.path.is_dir():
                    return known
                _unpack(archive, checked, folder)
                check_contents(folder, checked.manifest.files)
                return store.admit(folder, checked.content)
    except OSError as error:
        raise EncoderError(f"{path} cannot be imported: {error}.", "Check the path, or free space.") from error
    except _MALFORMED as error:
        raise EncoderError(f"{path} is not an archive of an encoder version, or damaged: {error}.", _DAMAGED) from error


class _Bounded(io.BufferedReader):
    """A file whose reads are limited to `_MAX_READ` bytes, whatever lengths the archive's fields claim."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Return the next `size` bytes, or fewer at the end."""
        wanted = _MAX_READ + 1 if size is None or size < 0 else size
        found = super().read(min(wanted, _MAX_READ + 1))
        if wanted > _MAX_READ and len(found) > _MAX_READ:
            raise ValueError(f"it asks for more than {_MAX_READ} bytes at once")
        return found


@dataclass(frozen=True, slots=True)
class _CheckedArchive:
    """An archive whose list of entries, digests and manifest were checked; its other contents are not read yet.

    `entries` are by path in the version's folder, without the manifest, which is `content`.
    """

    manifest: Manifest
    content: bytes
    entries: dict[str, zipfile.ZipInfo]


def _check_archive(archive: zipfile.ZipFile, size: int) -> _CheckedArchive:
    """Check the list of entries, the digests and the manifest of an archive, before unpacking."""
    entries = archive.infolist()
    if len(entries) > _MAX_ENTRIES:
        raise ValueError(f"it has more than {_MAX_ENTRIES} entries")
    for entry in entries:
        _check_entry(entry)
    _check_sizes(entries, size)
    by_name = {entry.filename: entry for entry in entries}
    if len(by_name) != len(entries):
        raise ValueError("it has two entries of one name")
    check_names(by_name)
    if SUMS_NAME not in by_name:
        raise ValueError(f"{SUMS_NAME} is missing")
    sums = _parse_sums(_read_entry(archive, by_name.pop(SUMS_NAME), _MAX_SUMS_BYTES).decode("utf-8"))
    if extra := sorted(by_name.keys() ^ sums.keys()):
        raise ValueError(f"it and its {SUMS_NAME} differ in {', '.join(repr(name[:200]) for name in extra[:3])}")
    return _check_manifest(archive, by_name, sums)


def _check_manifest(
    archive: zipfile.ZipFile, by_name: dict[str, zipfile.ZipInfo], sums: dict[str, str]
) -> _CheckedArchive:
    folders = {name.partition("/")[0] for name in sums}
    if len(folders) != 1 or not is_version_id(id := folders.pop()):
        raise ValueError("it does not hold exactly one encoder version")
    files = {name.removeprefix(f"{id}/"): digest for name, digest in sums.items()}
    if (digest := files.pop(MANIFEST_NAME, None)) is None:
        raise ValueError(f"{MANIFEST_NAME} is missing")
    content = _read_entry(archive, by_name.pop(f"{id}/{MANIFEST_NAME}"), MANIFEST_BYTES)
    if hashlib.sha256(content).hexdigest() != digest:
        raise ValueError(f"{MANIFEST_NAME} does not match its SHA-256 in {SUMS_NAME}")
    manifest = Manifest.from_json(content)
    if manifest.id != id or manifest.files != files:
        raise ValueError(f"the files of {id} are not what its manifest says")
    check_kinds(files, id)
    return _CheckedArchive(manifest, content, {name.removeprefix(f"{id}/"): entry for name, entry in by_name.items()})


def _check_entry(entry: zipfile.ZipInfo) -> None:
    """Check that an entry is a plain file, which every reader unpacks in the same way."""
    name = entry.orig_filename[:200]
    # zipfile cuts names at a NUL character.
    if entry.orig_filename != entry.filename:
        raise ValueError(f"it holds {name!r}, which readers take for different names")
    # Not is_dir(), which fails on an empty name.
    if entry.filename.endswith("/") or stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG):
        raise ValueError(f"it holds {name!r}, which is not a plain file")
    if entry.flag_bits & ~_PLAIN_FLAGS:
        raise ValueError(f"{name!r} is encrypted or patched")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name!r} is compressed in a way other than deflate")
    if entry.compress_type == zipfile.ZIP_STORED and entry.compress_size != entry.file_size:
        raise ValueError(f"{name!r} is said to be stored and to have two sizes")


def _check_sizes(entries: Iterable[zipfile.ZipInfo], size: int) -> None:
    """Check that entries do not overlap, and that they do not unpack to far more bytes than the file has."""
    if sum(entry.compress_size for entry in entries) > size:
        raise ValueError("its entries overlap")
    if (total := sum(entry.file_size for entry in entries)) > _MAX_BYTES or total > _MAX_RATIO * size + _EXTRA_BYTES:
        raise ValueError(f"it would unpack to {total} bytes, which is too much for a file of {size}")


def _read_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, limit: int) -> bytes:
    """Return the content of a small entry, at most `limit` bytes."""
    if entry.file_size > limit:
        raise ValueError(f"{entry.filename} is longer than {limit} bytes")
    return b"".join(_chunks(archive, entry))


def _chunks(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Iterator[bytes]:
    """Yield the content of an entry; zipfile checks its CRC at the end."""
    left = entry.file_size
    with archive.open(entry) as source:
        while chunk := source.read(_CHUNK):
            left -= len(chunk)
            if left < 0:
                raise ValueError(f"{entry.filename} is longer than it is said to be")
            yield chunk
    if left:
        raise ValueError(f"{entry.filename} is shorter than it is said to be")


def _parse_sums(text: str) -> dict[str, str]:
    rows = [_SUM.fullmatch(line) for line in text.removesuffix("\n").split("\n")]
    found = {row.group(2): row.group(1) for row in rows if row}
    if len(found) != len(rows):
        raise ValueError(f"{SUMS_NAME} cannot be read")
    return found


def _unpack(archive: zipfile.ZipFile, checked: _CheckedArchive, folder: Path) -> None:
    inside = folder.resolve()
    for name, entry in checked.entries.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.parent.resolve().is_relative_to(inside):
            raise ValueError(f"{name!r} leads out of the folder")
        digest = hashlib.sha256()
        with target.open("xb") as stream:
            for chunk in _chunks(archive, entry):
                digest.update(chunk)
                stream.write(chunk)
        if digest.hexdigest() != checked.manifest.files[name]:
            raise ValueError(f"{name} does not match its SHA-256 in {SUMS_NAME}")
