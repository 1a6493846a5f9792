"""Weight averaging with the base ("model soup", arXiv 2203.05482; WiSE-FT, arXiv 2109.01903) against forgetting."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = ["blend"]


def blend(model: SentenceTransformer, base: SentenceTransformer, share: float) -> None:
    """Set each weight of a model, in place, to base + share x (trained - base).

    Args:
        model: the trained model.
        base: the model that training started from; its modules are the same.
        share: how much of what was learned is kept, 0 to 1.
    """
    import torch

    old = base.state_dict()
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                # a view of the model's own weights, so that this changes them
                value.lerp_(old[name].to(value.device, value.dtype), 1 - share)
