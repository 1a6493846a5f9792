"""Changes of weight matrices as two factors each, whose product is added (LoRA, arXiv 2106.09685).

Of a matrix NAME of shape (out, in) there are ``NAME.up`` of shape (out, rank) and ``NAME.down`` of shape (rank, in).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from hins_memory.errors import EncoderError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import Tensor

__all__ = ["add_factors", "changed_factors", "factorize"]

_UP, _DOWN = ".up", ".down"
# A few more columns than the rank are drawn, so that the best factors of that rank are found and not only good ones.
_OVERSAMPLING = 8
# A weight that changed by less than this, relative to its size, was not trained.
_UNCHANGED = 1e-6


def changed_factors(
    before: Mapping[str, Tensor], after: Mapping[str, Tensor], rank: int, *, most_lost: float = 1.0
) -> dict[str, Tensor]:
    """Return factors, in half precision, of every matrix that changed.

    Where the change is of that rank already, as a low-rank update is, nothing but precision is lost.

    Args:
        before: weights by name.
        after: weights of the same names and shapes; others are ignored.
        rank: of the factors, at least 1.
        most_lost: the share of a change's norm that the factors may leave out, 1 for any.

    Raises:
        EncoderError: a weight is missing or has another shape, or a change is not of that rank.
    """
    factors: dict[str, Tensor] = {}
    for name, weight in sorted(before.items()):
        if not weight.is_floating_point():
            continue
        if name not in after or after[name].shape != weight.shape:
            raise EncoderError(
                f"It is not a tuned version of its base: {name} differs in shape.", "Train from the base."
            )
        change = after[name].float() - weight.float()
        if weight.dim() == 2 and float(change.norm()) > _UNCHANGED * float(weight.norm()):
            up, down = (factor.half().contiguous() for factor in factorize(change, rank))
            if float((up.float() @ down.float() - change).norm()) > most_lost * float(change.norm()):
                raise EncoderError(f"The change of {name} has not the rank {rank}.", "Export the version whole.")
            factors[name + _UP], factors[name + _DOWN] = up, down
    return factors


def add_factors(model: SentenceTransformer, factors: Mapping[str, Tensor], what: str) -> None:
    """Add the products of factors to the weights of a model's transformer, in place; other tensors are ignored.

    Args:
        model: its first module is the transformer.
        factors: as `changed_factors` returns them.
        what: whose they are, for the message.

    Raises:
        EncoderError: they do not fit the model.
    """
    import torch

    weights = dict(model[0].auto_model.named_parameters())
    with torch.no_grad():
        for name in sorted(name.removesuffix(_UP) for name in factors if name.endswith(_UP)):
            up, down = factors[name + _UP], factors.get(name + _DOWN)
            shape = None if down is None or up.dim() != 2 or down.dim() != 2 else (up.shape[0], down.shape[1])
            if down is None or name not in weights or weights[name].shape != shape or up.shape[1] != down.shape[0]:
                raise EncoderError(f"{what} does not fit the model: it has no matrix {name}.", "Use its own base.")
            # (out, rank) @ (rank, in)
            weights[name] += (up.float() @ down.float()).to(weights[name])


def factorize(change: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return factors of a matrix, (rows, rank) and (rank, columns), with the same singular values in both.

    Randomised SVD with one power iteration (https://arxiv.org/abs/0909.4061): exact where the matrix has that rank,
    and else close to the best factors. No matrix of the size of `change` is made. A rank above that of any matrix of
    its shape is cut to it.
    """
    import torch

    rank = min(rank, *change.shape)
    drawn = min(rank + _OVERSAMPLING, *change.shape)
    # Seeded: the same change has the same factors.
    probe = torch.randn(change.shape[1], drawn, generator=torch.Generator().manual_seed(0)).to(change)
    # (rows, drawn)
    basis, _ = torch.linalg.qr(change @ (change.T @ (change @ probe)))
    left, sizes, right = torch.linalg.svd(basis.T @ change, full_matrices=False)
    root = sizes[:rank].sqrt()
    return basis @ (left[:, :rank] * root), root[:, None] * right[:rank]
