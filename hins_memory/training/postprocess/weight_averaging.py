"""Weight averaging with the base ("model soup", arXiv 2203.05482; WiSE-FT, arXiv 2109.01903) against forgetting."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = ["average_weights"]


def average_weights(model: SentenceTransformer, base: SentenceTransformer, share: float) -> None:
    """Set each weight of a model, in place, to base + share x (trained - base).

    Args:
        model: the trained model.
        base: the model that training started from; its modules are the same.
        share: the share of the trained weights in the mean, 0 to 1.
    """
    import torch

    base_weights = base.state_dict()
    with torch.no_grad():
        for name, weight in model.state_dict().items():
            if weight.is_floating_point():
                # A view of the model's own weights: this changes the model.
                weight.lerp_(base_weights[name].to(weight.device, weight.dtype), 1 - share)
