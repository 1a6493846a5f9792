"""A last layer that raises all cosines of an encoder alike, and keeps every ranking.

Every vector gets a constant component along a direction which the vectors hardly use: of unit vectors x and y with the
cosine s, x + c u and y + c u have (s + c^2) / (1 + c^2). The cosine 1 stays where it is. It is a Dense layer of
sentence-transformers' own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import Tensor

__all__ = ["lift_of", "rebuilt", "with_lift", "without_lift"]


def with_lift(model: SentenceTransformer, lift: float, direction: Tensor) -> SentenceTransformer:
    """Return a model whose vectors have a constant component, so that a cosine s becomes (s + lift) / (1 + lift).

    Args:
        model: a model of sentence-transformers' modules.
        lift: c^2, 0 or more.
        direction: the unit vector u, of shape (dim,); what the vectors have along it is left out.
    """
    import torch
    from sentence_transformers.models import Dense, Normalize

    dense = Dense(len(direction), len(direction), bias=True, activation_function=torch.nn.Identity())
    with torch.no_grad():
        dense.linear.weight.copy_(torch.eye(len(direction)) - torch.outer(direction, direction))
        dense.linear.bias.copy_(lift**0.5 * direction)
    modules = [module for module in model.children() if not isinstance(module, Normalize)]
    return rebuilt(model, [*modules, Normalize(), dense, Normalize()])


def without_lift(model: SentenceTransformer) -> SentenceTransformer:
    """Return the model without the last layers that `with_lift` gave it; any other model as it is.

    Training goes without: the layers compress the differences that it works on.
    """
    return model if lift_of(model) is None else rebuilt(model, list(model.children())[:-2])


def lift_of(model: SentenceTransformer) -> tuple[float, Tensor] | None:
    """Return the lift and the direction that `with_lift` gave a model; None for any other model."""
    import torch
    from sentence_transformers.models import Dense, Normalize

    modules = list(model.children())
    if [type(module) for module in modules[-3:]] != [Normalize, Dense, Normalize]:
        return None
    bias, weight = (value.detach() for value in (modules[-2].linear.bias, modules[-2].linear.weight))
    direction = torch.nn.functional.normalize(bias, dim=0)
    own = torch.eye(len(direction), device=direction.device) - torch.outer(direction, direction)
    return (float(bias.square().sum()), direction) if torch.allclose(weight, own, atol=1e-4) else None


def rebuilt(model: SentenceTransformer, modules: Sequence[Any]) -> SentenceTransformer:
    """Return a model of other modules with everything else of a model's."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(
        modules=list(modules),
        device=str(model.device),
        prompts=dict(model.prompts),
        default_prompt_name=model.default_prompt_name,
        similarity_fn_name=model.similarity_fn_name,
        trust_remote_code=False,
    )
