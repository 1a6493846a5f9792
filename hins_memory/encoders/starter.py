"""The starter: a small low-rank delta on the stock model, in the wheel, that the first search of a new user runs on.

The file holds factors of every changed weight matrix (see `hins_memory.encoders.low_rank`). Where training added a last
layer to the model (see `hins_memory.encoders.score_offset`), ``lift`` of shape (dim,) is its bias.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hins_memory.data import packaged
from hins_memory.encoders.low_rank import add_factors, changed_factors
from hins_memory.encoders.score_offset import score_offset_of, with_score_offset
from hins_memory.errors import EncoderError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import Tensor

__all__ = [
    "STARTER",
    "default_base",
    "is_starter",
    "merge_delta",
    "starter_digest",
    "starter_keyword_weight",
    "starter_packaged",
    "starter_path",
    "starter_version",
    "starters",
    "write_delta",
]

#: The name that `Encoder.load` knows the newest starter by. An earlier one is named by its version.
STARTER = "starter"
_VERSION = "hins-starter@"
_HINT = "Reinstall it: pip install --force-reinstall hins-memory"
_OFFSET = "lift"


def starter_path(name: str = STARTER) -> Path:
    """Return a packaged delta, whether it is there or not.

    Args:
        name: ``starter`` for the newest, or the version of an earlier one, as ``hins-starter@0123abcd``. Those are kept
            because stores are embedded with them.
    """
    suffix = "" if name == STARTER else f"-{name.removeprefix(_VERSION)}"
    return Path(str(packaged(f"starter{suffix}.safetensors")))


def starter_packaged() -> bool:
    """Tell whether this installation has a starter."""
    return starter_path().is_file()


def starters() -> tuple[str, ...]:
    """Return the names of all packaged starters as `Encoder.load` takes them: ``starter``, then earlier versions."""
    if not starter_packaged():
        return ()
    earlier = sorted(starter_path().parent.glob("starter-*.safetensors"))
    return (STARTER, *(f"{_VERSION}{path.stem.partition('-')[2]}" for path in earlier))


def is_starter(name: str | Path) -> bool:
    """Tell whether a name, as for `Encoder.load`, is a starter's: ``starter``, or the version of an earlier one."""
    return str(name) == STARTER or str(name) in starters()


def default_base() -> str:
    """Return what a project without an encoder of its own starts from, as for `Encoder.load`.

    That is what the environment's ``HINS_BASE`` names, else the starter, where there is one.
    """
    return os.environ.get("HINS_BASE") or (STARTER if starter_packaged() else "stock")


def starter_digest(name: str = STARTER) -> str:
    """Return the recorded SHA-256 of a packaged delta, as 64 hexadecimal digits.

    Raises:
        EncoderError: no digest is recorded.
    """
    return _recorded(starter_path(name))[0]


def starter_keyword_weight(name: str = STARTER) -> float | None:
    """Return how much keywords count beside a starter's cosines (`Description.keyword_weight`), 0 to 1.

    Raises:
        EncoderError: the record cannot be read.
    """
    return _recorded(starter_path(name))[1]


def _recorded(path: Path) -> tuple[str, float | None]:
    """Return the recorded digest and keyword weight."""
    record = path.with_suffix(".json")
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
        weight = found.get("keyword_weight")
        return str(found["sha256"]), None if weight is None else float(weight)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise EncoderError(f"This installation has no starter: {record} cannot be read ({error}).", _HINT) from error


def starter_version(name: str = STARTER) -> str:
    """Return the version of a packaged starter, e.g. ``hins-starter@0123abcd``.

    Raises:
        EncoderError: there is none.
    """
    return f"{_VERSION}{starter_digest(name)[:8]}"


def merge_delta(model: SentenceTransformer, path: Path, digest: str) -> SentenceTransformer:
    """Return the model that a delta was made of.

    Args:
        model: the base; its weights are changed.
        path: the delta, as `write_delta` writes it.
        digest: its SHA-256.

    Raises:
        EncoderError: the file is missing or damaged, or does not fit the model.
    """
    import safetensors.torch

    try:
        content = path.read_bytes()
    except OSError as error:
        raise EncoderError(f"The delta {path} cannot be read: {error}.", _HINT) from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise EncoderError(f"The delta {path} is damaged: it does not match its digest.", _HINT)
    return _merge(model, safetensors.torch.load(content))


def _merge(model: SentenceTransformer, factors: Mapping[str, Tensor]) -> SentenceTransformer:
    import torch

    add_factors(model, factors, "The starter")
    if _OFFSET not in factors:
        return model
    bias = factors[_OFFSET].float()
    return with_score_offset(model, float(bias.square().sum()), torch.nn.functional.normalize(bias, dim=0))


def write_delta(
    base: Path, trained: Path, target: Path, rank: int, about: Mapping[str, Any], keyword_weight: float | None = None
) -> str:
    """Write what training changed as factors of a rank; return the file's SHA-256, which is recorded beside it.

    Where the change is of that rank already, as a low-rank update is, nothing but precision is lost.

    Args:
        base: the folder of the model that training began with.
        trained: the folder of the trained model.
        target: the file to write; ``.json`` of the same name records its digest and `about`.
        rank: of the factors, at least 1.
        about: what is kept in the file beside the factors: settings, data, figures; JSON-able.
        keyword_weight: how much keywords are to count beside its cosines, 0 to 1; None for a framework's own sum.

    Raises:
        EncoderError: a folder has no weights, the two do not fit, or nothing differs.
    """
    import safetensors.torch
    from sentence_transformers import SentenceTransformer

    before, after = (_weights(folder) for folder in (base, trained))
    factors = changed_factors(before, after, rank)
    if not factors:
        raise EncoderError(f"{trained} has the same weights as {base}.", "Train it first.")
    offset = score_offset_of(SentenceTransformer(str(trained), device="cpu", trust_remote_code=False))
    if offset is not None:
        factors[_OFFSET] = offset[0] ** 0.5 * offset[1]
    content = safetensors.torch.save(factors, {"about": json.dumps(about, sort_keys=True)})
    digest = hashlib.sha256(content).hexdigest()
    target.write_bytes(content)
    said = {"sha256": digest, "bytes": len(content), "about": about}
    said |= {} if keyword_weight is None else {"keyword_weight": keyword_weight}
    record = json.dumps(said, indent=1, sort_keys=True)
    target.with_suffix(".json").write_text(record + "\n", encoding="utf-8")
    return digest


def _weights(folder: Path) -> dict[str, Tensor]:
    import safetensors.torch

    try:
        return safetensors.torch.load_file(folder / "model.safetensors")
    except OSError as error:
        raise EncoderError(f"{folder} has no readable model.safetensors: {error}.", "Give a model's folder.") from error
