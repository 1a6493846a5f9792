"""Encoder versions in a store that all hosts of a project reach: an object store or a shared folder, through fsspec.

Under ``STORE/PROJECT/`` lies every file once, under its SHA-256 (``files/``), and of every version its manifest
(``versions/ID.json``), which is written last: a version that can be found there is complete. Folders on a host's disk
are copies that may be deleted.
"""

from __future__ import annotations

import contextlib
import logging
import posixpath
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hins_memory.common.files import file_digest, file_system_errors
from hins_memory.database.leases import LeaseHeldError
from hins_memory.encoders.contents import check_contents, check_kinds
from hins_memory.encoders.manifest import MANIFEST_BYTES, MANIFEST_NAME, Manifest, is_version_id
from hins_memory.errors import EncoderError

if TYPE_CHECKING:
    from hins_memory.config import Settings
    from hins_memory.database.leases import Leases

__all__ = ["RemoteVersions"]

logger = logging.getLogger(__name__)

# Another host may be uploading a version.
_WAIT_SECONDS = 600.0
_CHECK_HINT = "Check HINS_STORE, its credentials and the network."


class RemoteVersions:
    """The versions of a project in its store. One host at a time changes it; any number read.

    Args:
        settings: the project; `settings.store` is a URL that fsspec knows: ``s3://bucket/folder``, ``gs://``,
            ``file:///mnt/share``.
        leases: of the project's database.
    """

    def __init__(self, settings: Settings, leases: Leases) -> None:
        self._url = settings.store
        self._project = settings.project
        self._leases = leases

    def upload(self, folder: Path, manifest: Manifest, record: Callable[[], None]) -> None:
        """Put a version's files and then its manifest into the store; what is there already is not sent again.

        Args:
            folder: the version's.
            manifest: its manifest.
            record: lets every process find it; called before another host may prune the store.

        Raises:
            EncoderError: the store cannot be written, or holds another version of that id.
        """
        with self._changing(f"{manifest.id} could not be uploaded"):
            files, root = self._open()
            content = (folder / MANIFEST_NAME).read_bytes()
            self._check_same(files, root, manifest)
            for name, digest in manifest.files.items():
                target = _file(root, digest)
                files.makedirs(posixpath.dirname(target), exist_ok=True)
                # A size that differs is left by an upload that was cut on a file system.
                if not files.exists(target) or files.size(target) != (folder / name).stat().st_size:
                    files.put_file(str(folder / name), target)
            files.makedirs(f"{root}/versions", exist_ok=True)
            files.pipe_file(_manifest(root, manifest.id), content)
            record()
        logger.info("%s is in the store %s", manifest.id, self._url)

    def download(self, manifest: Manifest, folder: Path) -> bytes | None:
        """Copy a version's files into a folder, compare them with their digests, and check them as an import does.

        Args:
            manifest: the version, as the project's database knows it.
            folder: an empty folder.

        Returns:
            The manifest's file; None when the store does not have the version.

        Raises:
            EncoderError: the store cannot be read, or holds other files than the manifest says.
        """
        with file_system_errors(EncoderError, f"{manifest.id} could not be downloaded from {self._url}", _CHECK_HINT):
            files, root = self._open()
            source = _manifest(root, manifest.id)
            if not files.exists(source):
                return None
            content = _read(files, source)
            if Manifest.from_json(content).as_made() != manifest.as_made():
                raise EncoderError(f"The store {self._url} holds another version {manifest.id}.", _CHECK_HINT)
            for name, digest in manifest.files.items():
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                files.get_file(_file(root, digest), str(target))
                if file_digest(target) != digest:
                    raise EncoderError(
                        f"{name} of {manifest.id} in the store {self._url} does not match its SHA-256.",
                        f"Delete {_file(root, digest)} there; the host that made the version uploads it again.",
                    )
            check_kinds(manifest.files, manifest.id)
            check_contents(folder, manifest.files)
            return content

    def keep_only(self, known: Callable[[], Collection[str]]) -> int:
        """Remove all versions but those that the project knows, and the files that no version needs any more.

        Args:
            known: returns their ids; called when no host is uploading.

        Returns:
            How many bytes that freed.

        Raises:
            EncoderError: the store cannot be read or written, or a manifest there is damaged; nothing is removed then.
        """
        with self._changing(f"The store {self._url} could not be pruned"):
            files, root, ids = *self._open(), known()
            manifests = {name: path for path in _listed(files, f"{root}/versions") if (name := _id(path))}
            kept = {name: Manifest.from_json(_read(files, manifests[name])) for name in manifests if name in ids}
            for name in manifests.keys() - kept.keys():
                files.rm_file(manifests[name])
            needed = {digest for manifest in kept.values() for digest in manifest.files.values()}
            freed = 0
            for folder in _listed(files, f"{root}/files"):
                for path in _listed(files, folder):
                    if posixpath.basename(path) not in needed:
                        freed += int(files.size(path) or 0)
                        files.rm_file(path)
            return freed

    def _check_same(self, files: Any, root: str, manifest: Manifest) -> None:
        path = _manifest(root, manifest.id)
        if not files.exists(path):
            return
        with contextlib.suppress(ValueError):
            # One that cannot be read was cut while it was written.
            if Manifest.from_json(_read(files, path)).as_made() != manifest.as_made():
                raise EncoderError(
                    f"The store {self._url} holds another version {manifest.id}.",
                    "Two databases must not share a project in one store: give one of the projects another name.",
                )

    def _open(self) -> tuple[Any, str]:
        """Return the file system and the project's folder in it."""
        from fsspec.core import url_to_fs

        # Listings are not kept: other hosts write there too.
        files, root = url_to_fs(self._url, use_listings_cache=False)
        return files, posixpath.join(root, self._project)

    @contextlib.contextmanager
    def _changing(self, problem: str) -> Iterator[None]:
        """Hold the right to change the store, once another host has given it back; errors say what failed."""
        end = time.monotonic() + _WAIT_SECONDS
        with contextlib.ExitStack() as stack:
            while True:
                try:
                    stack.enter_context(self._leases.hold("versions in the store"))
                    break
                except LeaseHeldError as error:
                    if time.monotonic() > end:
                        raise EncoderError(f"{problem}: it is in use by {error.holder}.", "Try again later.") from error
                    time.sleep(0.2)
            stack.enter_context(file_system_errors(EncoderError, problem, _CHECK_HINT))
            yield


def _file(root: str, digest: str) -> str:
    return f"{root}/files/{digest[:2]}/{digest}"


def _manifest(root: str, id: str) -> str:
    return f"{root}/versions/{id}.json"


def _id(path: str) -> str:
    name = posixpath.basename(path).removesuffix(".json")
    return name if is_version_id(name) else ""


def _read(files: Any, path: str) -> bytes:
    """Return a manifest's file; it is not trusted to be small."""
    if int(files.size(path) or 0) > MANIFEST_BYTES:
        raise ValueError(f"{path} is longer than {MANIFEST_BYTES} bytes")
    content: bytes = files.cat_file(path)
    return content


def _listed(files: Any, folder: str) -> list[str]:
    """Return the paths in a folder of the store; none if it is not there."""
    try:
        found: list[Mapping[str, Any] | str] = files.ls(folder, detail=False)
    except FileNotFoundError:
        return []
    return [str(path) for path in found]
