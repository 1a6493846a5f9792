"""Equal weights of loaded models as one tensor in memory: those of a tower's two sides, and of versions of one base."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["share_weights"]

# What less than this would save, in bytes, is left as it is.
_WORTH = 1 << 20


def share_weights(model: nn.Module, others: Iterable[nn.Module]) -> int:
    """Replace weights that another model, or another side of this one, holds too by theirs; return the bytes saved.

    Such a weight that is changed in place changes everywhere: this is for models that serve.

    Args:
        model: of sentence-transformers' modules.
        others: models that are loaded already; they are only read.
    """
    known: dict[Any, list[Tensor]] = {}
    for other in others:
        _remember(known, other)
    saved = 0
    for part in (module for module in model.modules() if hasattr(module, "auto_model")):
        # Two weights of one module stay two, also where they are equal: such a module could not be saved.
        taken: set[int] = set()
        equal = [(weight, _equal(known, weight.data, taken)) for weight in part.parameters()]
        shared = sum(one.numel() * one.element_size() for _, one in equal if one is not None)
        if shared >= _WORTH:
            saved += shared
            for weight, one in equal:
                # The file that the weights came from is mapped into memory as long as one of them is in use.
                weight.data = weight.data.clone() if one is None else one
        _remember(known, part)
    return saved


def _remember(known: dict[Any, list[Tensor]], module: nn.Module) -> None:
    for weight in module.parameters():
        known.setdefault(_kind(weight.data), []).append(weight.data)


def _equal(known: dict[Any, list[Tensor]], weight: Tensor, taken: set[int]) -> Tensor | None:
    import torch

    for one in known.get(_kind(weight), ()):
        if one.data_ptr() not in taken and torch.equal(one, weight):
            taken.add(one.data_ptr())
            return one
    return None


def _kind(weight: Tensor) -> Any:
    return weight.shape, weight.dtype, weight.device
