"""Where a project keeps the ONNX exports of its encoders, and which of them serves."""

from __future__ import annotations

import logging
import os
import shutil
import uuid
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args
from urllib.parse import quote

from hins_memory.common.files import file_lock
from hins_memory.config import Settings
from hins_memory.encoders.cached import CachedEncoder
from hins_memory.encoders.onnx.record import OnnxRecord, Precision, read_record
from hins_memory.encoders.onnx.session import OnnxEncoder
from hins_memory.encoders.onnx.sided import SidedEncoder
from hins_memory.errors import EncoderError
from hins_memory.registry.loader import shared_encoder

__all__ = ["Engine", "OnnxExports"]

logger = logging.getLogger(__name__)

#: What embeds: onnxruntime where there is an export (auto), always (onnx) or never (torch).
Engine = Literal["auto", "onnx", "torch"]


class OnnxExports:
    """The ONNX exports of a project's encoders: never more than what can be made again from the versions.

    They are under `onnx/` in the project's folder, one folder for each version and precision. Safe with several
    processes.

    Args:
        settings: the project.
    """

    def __init__(self, settings: Settings) -> None:
        self._folder, self._encoders = settings.root / "onnx", settings.encoders
        self._lock = settings.root / "locks" / "onnx.lock"

    def path(self, version: str, precision: Precision) -> Path:
        """Return where an export of an encoder is, or would be."""
        # Names of models of the hub have slashes.
        return self._folder / quote(version, safe="@ ") / precision

    def find(self, version: str, precision: Precision) -> OnnxRecord | None:
        """Return the record of an export; None where there is none.

        Raises:
            EncoderError: it is damaged, or that of another encoder.
        """
        folder = self.path(version, precision)
        if not folder.is_dir():
            return None
        record = read_record(folder)
        if (record.version, record.precision) != (version, precision):
            raise EncoderError(f"{folder} is the {record.precision} export of {record.version}.", "Remove the folder.")
        return record

    def add(self, made: Path, record: OnnxRecord) -> Path:
        """Take over a finished folder, with its record; it is moved, and replaces an export that is there.

        Raises:
            EncoderError: it cannot be moved.
        """
        target = self.path(record.version, record.precision)
        try:
            record.write(made)
            with file_lock(self._lock):
                target.parent.mkdir(parents=True, exist_ok=True)
                self._drop(target)
                os.rename(made, target)
        except OSError as error:
            raise EncoderError(
                f"{target} cannot be written: {error}.", "Free space, or fix its permissions."
            ) from error
        return target

    def new_folder(self) -> Path:
        """Return a path for a folder to make an export in; `hins encoders prune` removes what a kill leaves there."""
        self._encoders.mkdir(parents=True, exist_ok=True)
        return self._encoders / f".incoming-{uuid.uuid4().hex}"

    def remove(self, version: str, precision: Precision | None = None) -> None:
        """Remove an export of an encoder, or all of them; what has loaded one keeps it."""
        with file_lock(self._lock):
            for one in get_args(Precision) if precision is None else (precision,):
                self._drop(self.path(version, one))

    def load(self, version: str, space: str, source: str | Path, engine: Engine) -> CachedEncoder | SidedEncoder:
        """Load what serves an encoder.

        Queries are embedded by the int8 export, else by that in fp32, else by torch; documents by one in fp32, of the
        encoder or of what its documents are embedded by, else by torch. So stored vectors are those of the encoder.

        Args:
            version: the encoder version.
            space: of its documents' vectors.
            source: what torch loads, as for `Encoder.load`.
            engine: ``onnx`` never loads torch, ``torch`` never an export; ``auto`` does what there is.

        Raises:
            EncoderError: with ``onnx``, an export is missing; or what is there cannot be loaded.
        """
        if engine == "torch" or (engine == "auto" and find_spec("onnxruntime") is None):
            return shared_encoder(source)
        queries = self._queries(version, engine)
        if queries is None:
            return shared_encoder(source)
        if queries.record.documents:
            return queries

        def documents() -> CachedEncoder:
            for one in dict.fromkeys((version, space)):
                record = self.find(one, "fp32")
                if record is not None and record.documents:
                    return OnnxEncoder(self.path(one, "fp32"), record)
            if engine == "onnx":
                raise _missing(space, "documents")
            return shared_encoder(source)

        return SidedEncoder(queries, documents)

    def _queries(self, version: str, engine: Engine) -> OnnxEncoder | None:
        for precision in ("int8", "fp32"):
            try:
                record = self.find(version, precision)
                if record is not None:
                    return OnnxEncoder(self.path(version, precision), record)
            except EncoderError as error:
                if engine == "onnx":
                    raise
                logger.warning("The %s export of %s is not used: %s", precision, version, error)
        if engine == "onnx":
            raise _missing(version, "queries")
        return None

    def _drop(self, folder: Path) -> None:
        """Remove a folder in one step, as others see it."""
        if folder.is_dir():
            dropped = self.new_folder()
            os.rename(folder, dropped)
            shutil.rmtree(dropped, ignore_errors=True)


def _missing(version: str, what: str) -> EncoderError:
    return EncoderError(
        f"There is no ONNX export of {version} for {what}.", f"Make it: `hins encoders export {version} --onnx`."
    )
