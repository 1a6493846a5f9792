"""What two encoder versions differ in: settings, training data, metrics, and the weights of every module."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hins_memory.encoders.manifest import Manifest
from hins_memory.errors import EncoderError

if TYPE_CHECKING:
    import torch

__all__ = ["ModuleChange", "VersionDiff", "diff_versions"]

# Not what a version is, but what happened to it, and lists too long to be read.
_LEFT_OUT = frozenset({"files", "gates", "promotions", "schema_version", "trained_conversations"})
# Up to and with its first number: "encoder.layer.3.output.dense.weight" belongs to "encoder.layer.3".
_NUMBERED = re.compile(r"(?:[^.]+\.)*?\d+(?=\.)")


@dataclass(frozen=True, slots=True)
class ModuleChange:
    """The weights of one module in two versions, as Frobenius norms.

    Attributes:
        module: e.g. ``encoder.layer.3``, with the file's folder in front if it is not the first module's.
        parameters: how many weights the second version has in it, or the first where the second has none.
        before: the norm of the first version's weights; None where it has no such module.
        after: the norm of the second version's.
        change: the norm of the difference; None where the shapes differ.
    """

    module: str
    parameters: int
    before: float | None
    after: float | None
    change: float | None


@dataclass(frozen=True, slots=True)
class VersionDiff:
    """What two versions differ in.

    Attributes:
        values: what the manifests say differently, dotted name -> (first, second); None where one says nothing.
        modules: every module, in the order of its name.
    """

    values: dict[str, tuple[Any, Any]]
    modules: tuple[ModuleChange, ...]


def diff_versions(
    first: Path, second: Path, manifests: tuple[Manifest | None, Manifest | None] = (None, None)
) -> VersionDiff:
    """Compare two sentence-transformers folders with safetensors weights.

    Args:
        first: the folder that is compared with.
        second: the folder that is described.
        manifests: what is known of the two; None for an encoder that is not a version.

    Raises:
        EncoderError: weights cannot be read.
    """
    before, after = (dict(_flat(manifest.to_dict() if manifest else {})) for manifest in manifests)
    names = [name for name in dict.fromkeys((*before, *after)) if before.get(name) != after.get(name)]
    values = {name: (before.get(name), after.get(name)) for name in names}
    return VersionDiff(values, tuple(_modules(first, second)))


def _flat(manifest: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in manifest.items():
        if not prefix and name in _LEFT_OUT:
            continue
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif not isinstance(value, list) or len(value) <= 8:
            yield f"{prefix}{name}", value


def _modules(first: Path, second: Path) -> Iterator[ModuleChange]:
    one, two = _Weights(first), _Weights(second)
    grouped: dict[str, list[str]] = {}
    for name in dict.fromkeys((*one.names, *two.names)):
        grouped.setdefault(_module_of(name), []).append(name)
    for module, names in sorted(grouped.items(), key=lambda item: _natural(item[0])):
        yield _change(module, names, one, two)


def _change(module: str, names: list[str], one: _Weights, two: _Weights) -> ModuleChange:
    """Sum the squares of a module's tensors, one tensor of each version in memory at a time."""
    before = after = change = 0.0
    parameters, same = 0, True
    for name in names:
        old, new = one.tensor(name), two.tensor(name)
        before += float(old.square().sum()) if old is not None else 0.0
        after += float(new.square().sum()) if new is not None else 0.0
        there = new if new is not None else old
        parameters += there.numel() if there is not None else 0
        if old is not None and new is not None and old.shape == new.shape:
            change += float((new - old).square().sum())
        else:
            same = False
    return ModuleChange(
        module,
        parameters,
        before**0.5 if any(name in one.names for name in names) else None,
        after**0.5 if any(name in two.names for name in names) else None,
        change**0.5 if same else None,
    )


class _Weights:
    """The tensors of a folder's safetensors files, read when they are asked for; names hold the file's folder."""

    def __init__(self, folder: Path) -> None:
        from safetensors import SafetensorError, safe_open

        self.names: dict[str, tuple[Path, str]] = {}
        for path in sorted(folder.rglob("*.safetensors")):
            inner = path.parent.relative_to(folder).as_posix()
            prefix = "" if inner == "." else f"{inner}/"
            try:
                with safe_open(path, framework="pt") as tensors:
                    self.names.update({f"{prefix}{name}": (path, name) for name in tensors.keys()})  # noqa: SIM118
            except (OSError, SafetensorError) as error:
                raise EncoderError(f"{path} cannot be read: {error}.", "Restore the version.") from error

    def tensor(self, name: str) -> torch.Tensor | None:
        from safetensors import safe_open

        if name not in self.names:
            return None
        path, key = self.names[name]
        with safe_open(path, framework="pt") as tensors:
            found: torch.Tensor = tensors.get_tensor(key).double()
        return found


def _module_of(name: str) -> str:
    folder, _, key = name.rpartition("/")
    numbered = _NUMBERED.match(key)
    module = numbered.group() if numbered else key.split(".")[0]
    return f"{folder}/{module}" if folder else module


def _natural(name: str) -> list[tuple[int, str]]:
    """Order ``layer.10`` behind ``layer.9``."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
