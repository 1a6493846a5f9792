"""Files: public data sets, found or downloaded and checked; those that come with the benchmarks; whole writes."""

from __future__ import annotations

import hashlib
import os
import tempfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from hins_memory.common.files import file_digest
from hins_memory.config import Settings
from hins_memory.errors import ConfigError
from parts.common.screen import stage

__all__ = ["DATA", "DataSource", "resolve_data", "write_whole"]

#: The folder of the files that come with the benchmarks.
DATA = Path(__file__).resolve().parents[2] / "data"

_TIMEOUT_SECONDS = 60


@dataclass(frozen=True, slots=True)
class DataSource:
    """A public data file: its name, official address, SHA-256 (64 hexadecimal digits) and licence."""

    name: str
    url: str
    sha256: str
    licence: str


def resolve_data(path: Path | None, source: DataSource) -> Path:
    """Return a data file: the one given, else the checked download under ``$HINS_HOME/benchmarks``.

    Args:
        path: the file the user named; used as it is, whatever its digest.
        source: where to fetch it from otherwise.

    Raises:
        ConfigError: the named file is missing, or it can neither be found nor downloaded, or its digest is wrong.
    """
    if path is not None:
        if not path.is_file():
            raise ConfigError(f"There is no file {path}.", "Check the path, or leave it out to download the file.")
        return path
    target = Settings().home / "benchmarks" / source.name
    if target.is_file() and file_digest(target) == source.sha256:
        return target
    stage(f"downloading {source.url} ({source.licence})")
    try:
        with urllib.request.urlopen(source.url, timeout=_TIMEOUT_SECONDS) as response:
            content = bytes(response.read())
    except OSError as error:
        raise ConfigError(
            f"{source.name} is not at {target} and could not be downloaded from {source.url}: {error}.",
            "Download it elsewhere and name it with --data FILE.",
        ) from error
    if (found := hashlib.sha256(content).hexdigest()) != source.sha256:
        raise ConfigError(
            f"{source.url} gave a file with SHA-256 {found}, expected {source.sha256}.",
            "Try again later, or name your own copy with --data FILE.",
        )
    write_whole(target, content)
    return target


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees all of it or what was there before; its folder is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
