"""A tower as one small file: what its training changed, without the base that its documents are embedded by.

A safetensors file: half-precision factors of the matrices of the queries' transformer (see
`hins_memory.encoders.low_rank`), ``shift`` of shape (dim,) where a last layer adds a vector to the queries, and JSON
under ``about``: the manifest, the base's version with the digest of its weights, and the digest of the tensors.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hins_memory.common.files import file_digest
from hins_memory.common.strict_json import parse_json, read_bounded
from hins_memory.encoders.encoder import Encoder, resolve_model
from hins_memory.encoders.low_rank import add_factors, changed_factors
from hins_memory.encoders.manifest import MANIFEST_BYTES, Manifest
from hins_memory.encoders.score_offset import shift_of, with_shift
from hins_memory.encoders.sides import sides_of, two_sided
from hins_memory.encoders.starter import is_starter, starter_digest
from hins_memory.errors import EncoderError

if TYPE_CHECKING:
    from torch import Tensor

    from hins_memory.registry.loader import EncoderSource
    from hins_memory.registry.versions import EncoderVersion, VersionStore

__all__ = ["DELTA_SUFFIX", "export_delta", "import_delta"]

#: What the names of such files end with.
DELTA_SUFFIX = ".safetensors"

_FORMAT = "hins tower delta 1"
_SHIFT = "shift"
# Factors of rank 64 of an encoder of 8 billion weights.
_MAX_BYTES = 1 << 30
# What half precision loses of a change is a two-thousandth.
_MOST_LOST = 0.01
# The starter is merged when it is loaded, and another processor may round otherwise.
_SAME = 1e-5
_WHOLE = "Export the version whole, without --delta."


def export_delta(version: EncoderVersion, path: Path, source: EncoderSource) -> str:
    """Write what a tower adds to the encoder of its documents to a file; return the file's SHA-256.

    Args:
        version: a version of the mode ``tower``.
        path: the file; one that is there is replaced.
        source: loads the encoder of the documents.

    Raises:
        EncoderError: the version is not a tower, is damaged, or its base is not here; the file cannot be written.
    """
    import safetensors.torch

    manifest = version.manifest.as_made()
    sides = sides_of(Encoder.load(version.path).model)
    if manifest.mode != "tower" or sides is None:
        raise EncoderError(f"{version.id} is not a tower: it was made in the mode {manifest.mode!r}.", _WHOLE)
    base, digest = _base(source, manifest.document_space)
    tensors = _tensors(version.id, *sides, base, manifest)
    about = {
        "format": _FORMAT,
        "manifest": manifest.to_dict(),
        "base": {"version": base.version, "sha256": digest},
        "sha256": _digest(tensors),
    }
    content = safetensors.torch.save(tensors, {"about": json.dumps(about, sort_keys=True)})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise EncoderError(f"{path} cannot be written: {error}.", "Name another file, or free space.") from error
    return hashlib.sha256(content).hexdigest()


def import_delta(path: Path, store: VersionStore, source: EncoderSource) -> EncoderVersion:
    """Make a version of a delta and the base that it belongs to; the same delta again gives the version that is there.

    It is the tower that was exported up to the half precision of the factors, so that it is a version of its own, whose
    `parent` is that tower.

    Args:
        path: what `export_delta` wrote.
        store: the project's versions.
        source: loads the base.

    Raises:
        EncoderError: the file is not such a delta or damaged, or its base is not here or another.
    """
    import torch

    read = _read(path)
    known = (one for one in store.versions() if one.manifest.other.get("delta") == read.sha256 and one.path.is_dir())
    if (found := next(known, None)) is not None:
        return found
    base, digest = _base(source, read.base)
    if digest != read.base_sha256:
        raise EncoderError(
            f"{path} belongs to another encoder than the {read.base} that is here: its weights have another SHA-256.",
            "Import the base that it was exported beside.",
        )
    queries = copy.deepcopy(base.model)
    add_factors(queries, read.tensors, str(path))
    if (shift := read.tensors.get(_SHIFT)) is not None:
        if shift.shape != (base.dim,):
            raise EncoderError(
                f"{path} does not fit {read.base}: its last layer has another length.", "Export it again."
            )
        queries = with_shift(queries, shift.to(queries.device, torch.float32))
    with store.unpacking() as folder:
        two_sided(queries, base.model).save(str(folder / "version"), safe_serialization=True)
        values = read.manifest.to_dict()
        # A resumed training looks for the version that its run has made.
        run = {name: value for name, value in values.pop("run", {}).items() if name != "id"}
        return store.add(folder / "version", {**values, "run": run, "parent": read.manifest.id, "delta": read.sha256})


@dataclass(frozen=True, slots=True)
class _Delta:
    """What a file says: of the tower, of the base that it belongs to; and the file's SHA-256."""

    manifest: Manifest
    tensors: Mapping[str, Tensor]
    base: str
    base_sha256: str
    sha256: str


def _read(path: Path) -> _Delta:
    import safetensors.torch

    try:
        content = read_bounded(path, _MAX_BYTES)
        tensors = safetensors.torch.load(content)
        about = _about(content)
        manifest = Manifest.from_dict(about["manifest"]).as_made()
        if about["sha256"] != _digest(tensors) or not all(bool(one.isfinite().all()) for one in tensors.values()):
            raise ValueError("its tensors are not those that were written")
        base = str(about["base"]["version"]), str(about["base"]["sha256"])
    except OSError as error:
        raise EncoderError(f"{path} cannot be read: {error}.", "Check the path.") from error
    except (safetensors.SafetensorError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise EncoderError(
            f"{path} is not a delta of a tower, or damaged: {error}.", "Export it again, or copy the file again."
        ) from error
    return _Delta(manifest, tensors, *base, hashlib.sha256(content).hexdigest())


def _about(content: bytes) -> dict[str, Any]:
    # The length of the header comes first; safetensors has found that the file is as long as that says.
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    about = parse_json(header["__metadata__"]["about"].encode(), limit=MANIFEST_BYTES)
    if about["format"] != _FORMAT:
        raise ValueError(f"its format is {str(about['format'])[:100]!r}")
    found: dict[str, Any] = about
    return found


def _base(source: EncoderSource, version: str) -> tuple[Encoder, str]:
    """Return the encoder of a tower's documents, and the SHA-256 of its weights."""
    place = source.source(version)
    if place is None:
        raise EncoderError(
            f"The encoder of the tower's documents, {version}, is not here.",
            "Import that version first, or let HINS_BASE name its folder.",
        )
    if is_starter(place):
        return source.by_version(version), starter_digest(str(place))
    folder, digest = Path(resolve_model(place)), hashlib.sha256()
    for file in sorted(folder.rglob("*.safetensors")):
        digest.update(f"{file.relative_to(folder).as_posix()} {file_digest(file)}\n".encode())
    return source.by_version(version), digest.hexdigest()


def _tensors(
    name: str, queries: list[Any], documents: list[Any], base: Encoder, manifest: Manifest
) -> dict[str, Tensor]:
    """Return what the queries have and the documents have not, checked to be all."""
    import torch

    whole = EncoderError(f"{name} changes more than the layers of its base.", _WHOLE)
    modules = list(base.model.children())
    if len(documents) != len(modules) or len(queries) < len(modules):
        raise whole
    factors: dict[str, Tensor] = {}
    for place, (ours, theirs, own) in enumerate(zip(queries, documents, modules, strict=False)):
        states = [dict(one.state_dict()) for one in (ours, theirs, own)]
        if any(state.keys() != states[1].keys() for state in states) or not _close(states[1], states[2]):
            raise EncoderError(f"The documents of {name} are not embedded by {base.version}.", _WHOLE)
        if place == 0:
            tuned = dict(ours.auto_model.named_parameters())
            rank = int(manifest.settings.get("lora_rank", 16))
            with torch.no_grad():
                kept = dict(theirs.auto_model.named_parameters())
                factors = changed_factors(kept, tuned, rank, most_lost=_MOST_LOST)
            changed = {id(tuned[key.rpartition(".")[0]]) for key in factors}
            same = {key for key, one in tuned.items() if id(one) not in changed}
            if not _close({key: kept[key] for key in same}, {key: tuned[key] for key in same}):
                raise whole
        elif not _close(states[0], states[1]):
            raise whole
    if not factors:
        raise EncoderError(f"{name} has the weights of its base.", "Train it first.")
    if rest := queries[len(modules) :]:
        shift = shift_of(rest)
        if shift is None:
            raise whole
        factors[_SHIFT] = shift.float().contiguous()
    return factors


def _close(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> bool:
    import torch

    return all(torch.allclose(one.float(), theirs[name].float(), rtol=0, atol=_SAME) for name, one in ours.items())


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, one in sorted(tensors.items()):
        digest.update(f"{name} {one.dtype} {tuple(one.shape)}\n".encode())
        digest.update(one.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
