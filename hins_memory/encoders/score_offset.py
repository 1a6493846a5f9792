"""A last layer that raises all cosines of an encoder by the same rule, and keeps every ranking.

Every vector gets a constant component along a direction which the vectors hardly use: of unit vectors x and y with the
cosine s, x + c u and y + c u have (s + c^2) / (1 + c^2). The cosine 1 stays where it is. It is a Dense layer of
sentence-transformers' own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hins_memory.encoders.layers import affine_layer, layers

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import Tensor

__all__ = [
    "score_offset_of",
    "shift_of",
    "with_affine",
    "with_modules",
    "with_score_offset",
    "with_shift",
    "without_score_offset",
]


def with_score_offset(model: SentenceTransformer, offset: float, direction: Tensor) -> SentenceTransformer:
    """Return a model whose vectors have a constant component, so that a cosine s becomes (s + offset) / (1 + offset).

    Args:
        model: a model of sentence-transformers' modules.
        offset: c^2, 0 or more.
        direction: the unit vector u, of shape (dim,); what the vectors have along it is left out.
    """
    import torch

    Normalize = layers().Normalize
    projection = torch.eye(len(direction)) - torch.outer(direction, direction)
    dense = affine_layer(projection, offset**0.5 * direction)
    modules = [module for module in model.children() if not isinstance(module, Normalize)]
    return with_modules(model, [*modules, Normalize(), dense, Normalize()])


def without_score_offset(model: SentenceTransformer) -> SentenceTransformer:
    """Return the model without the last layers that `with_score_offset` added; any other model as it is.

    Training starts without them: they compress the differences that it works on.
    """
    return model if score_offset_of(model) is None else with_modules(model, list(model.children())[:-2])


def score_offset_of(model: SentenceTransformer) -> tuple[float, Tensor] | None:
    """Return the offset and the direction that `with_score_offset` gave a model; None for any other model."""
    import torch

    Dense, Normalize = layers().Dense, layers().Normalize

    modules = list(model.children())
    if [type(module) for module in modules[-3:]] != [Normalize, Dense, Normalize]:
        return None
    bias, weight = (value.detach() for value in (modules[-2].linear.bias, modules[-2].linear.weight))
    if weight.shape != (len(bias), len(bias)):
        # It leads into another space.
        return None
    direction = torch.nn.functional.normalize(bias, dim=0)
    projection = torch.eye(len(direction), device=direction.device) - torch.outer(direction, direction)
    return (float(bias.square().sum()), direction) if torch.allclose(weight, projection, atol=1e-4) else None


def with_shift(model: SentenceTransformer, shift: Tensor) -> SentenceTransformer:
    """Return the model with a vector of shape (dim,) added to its unit vectors, which are unit vectors again."""
    import torch

    return with_affine(model, torch.eye(len(shift)), shift)


def with_affine(model: SentenceTransformer, weight: Tensor, bias: Tensor) -> SentenceTransformer:
    """Return the model with an affine map behind its unit vectors, whose results are unit vectors again.

    Args:
        model: a model of sentence-transformers' modules.
        weight: of shape (new dim, dim).
        bias: of shape (new dim,).
    """
    Normalize = layers().Normalize
    modules = list(model.children())
    if not isinstance(modules[-1], Normalize):
        modules.append(Normalize())
    return with_modules(model, [*modules, affine_layer(weight, bias), Normalize()])


def shift_of(added: Sequence[Any]) -> Tensor | None:
    """Return the vector that modules add which `with_shift` has put behind a model's; None for any others."""
    import torch

    Dense, Normalize = layers().Dense, layers().Normalize

    if [type(module) for module in added[-2:]] != [Dense, Normalize] or len(added) > 3:
        return None
    weight, bias = (value.detach() for value in (added[-2].linear.weight, added[-2].linear.bias))
    first = len(added) < 3 or isinstance(added[0], Normalize)
    return bias if first and torch.equal(weight, torch.eye(len(bias), device=weight.device)) else None


def with_modules(model: SentenceTransformer, modules: Sequence[Any]) -> SentenceTransformer:
    """Return a model of the given modules, with the device, prompts and similarity of an existing one."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(
        modules=list(modules),
        device=str(model.device),
        prompts=dict(model.prompts),
        default_prompt_name=model.default_prompt_name,
        similarity_fn_name=model.similarity_fn_name,
        trust_remote_code=False,
    )
