"""The layers of sentence-transformers, from where the installed version has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["affine_layer", "layers"]


def layers() -> Any:
    """Return the module that has sentence-transformers' layers: `Dense`, `Normalize`, `Router` and others.

    Version 6 moved them and warns of the old place, and Mem0 makes such warnings visible to users.
    """
    try:
        from sentence_transformers.sentence_transformer import modules
    except ImportError:
        from sentence_transformers import models as modules
    return modules


def affine_layer(weight: Tensor, bias: Tensor) -> Any:
    """Return a `Dense` layer x -> weight x + bias, of shapes (out, in) and (out,)."""
    import torch

    dense = layers().Dense(weight.shape[1], len(bias), bias=True, activation_function=torch.nn.Identity())
    with torch.no_grad():
        dense.linear.weight.copy_(weight)
        dense.linear.bias.copy_(bias)
    return dense
