"""Gathering tensors of all processes, with gradients; with one process, tensors are returned as they are."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["gathered", "process_rank", "several_processes"]


def several_processes() -> bool:
    """Tell whether several processes train together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def process_rank() -> int:
    """Return the number of this process, 0 for the first or only one."""
    return dist.get_rank() if several_processes() else 0


def gathered(tensor: Tensor) -> Tensor:
    """Join the tensors of all processes along their second dimension, in the order of the processes.

    Args:
        tensor: of shape (n, m, ...), of the same shape in every process.

    Returns:
        Tensor of shape (n, processes * m, ...). Its gradient reaches every process: each gets the sum of all processes'
        gradients of its part.
    """
    if not several_processes():
        return tensor
    if not tensor.requires_grad:
        return torch.cat(_all(tensor), dim=1)
    joined: Tensor = _Gather.apply(tensor)  # type: ignore[no-untyped-call]
    return joined


def _all(tensor: Tensor) -> list[Tensor]:
    tensor = tensor.contiguous()
    parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, tensor)
    return parts


class _Gather(torch.autograd.Function):
    """Gather with gradient. torch.distributed.nn has one, which needs all-to-all where there is no reduce-scatter."""

    @staticmethod
    def forward(context: Any, tensor: Tensor) -> Tensor:
        """Return the parts of all processes, joined."""
        return torch.cat(_all(tensor), dim=1)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        """Return the sum over processes of the gradient of this process's part."""
        gradient = gradients[0].contiguous()
        dist.all_reduce(gradient)
        return gradient.chunk(dist.get_world_size(), dim=1)[dist.get_rank()]
