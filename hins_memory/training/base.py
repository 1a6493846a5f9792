"""Digests of the encoder that a training starts from, to detect changes when it is loaded again."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from hins_memory.common.files import known_digest
from hins_memory.encoders.encoder import encoder_version, resolve_model
from hins_memory.encoders.manifest import MANIFEST_NAME
from hins_memory.encoders.starter import is_starter
from hins_memory.errors import TrainingError

if TYPE_CHECKING:
    from torch import nn

__all__ = ["base_digest", "changed_base", "check_base", "weights_digest"]


def base_digest(base: str | Path) -> str:
    """Return a digest of an encoder's files; "" for a model of the hub, which has no folder.

    Args:
        base: as for `Encoder.load`. The manifest of a version is left out, because verdicts are added to it.

    Raises:
        EncoderError: there is no such encoder.
    """
    if is_starter(base):
        return encoder_version(base)
    folder = Path(resolve_model(base))
    if not folder.is_dir():
        return ""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST_NAME):
        digest.update(
            f"{path.relative_to(folder).as_posix()}\0{known_digest(path)}\n".encode("utf-8", "surrogateescape")
        )
    return digest.hexdigest()


def weights_digest(model: nn.Module) -> str:
    """Return the SHA-256 of a loaded model's weights, with their names."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def check_base(base: str | Path, digest: str) -> None:
    """Check that an encoder's files are those that a training started from.

    Raises:
        TrainingError: they are not.
        EncoderError: there is no such encoder any more.
    """
    if base_digest(base) != digest:
        raise changed_base(base)


def changed_base(base: str | Path) -> TrainingError:
    """Return the error that says that an encoder is no longer what a training started from."""
    return TrainingError(
        f"The encoder {str(base)!r} is not the one that the training started from: its files have changed.",
        "Put the old one back, or start a new training without --resume.",
    )
