"""Training in several processes, as `torchrun` and `accelerate launch` start them."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

__all__ = ["from_main", "is_main", "process_count", "wait_for_all"]

T = TypeVar("T")
# The other processes wait while the first one mines, which takes long on a large log.
_TIMEOUT = timedelta(days=1)


def process_count() -> int:
    """Return how many processes train together, as the launcher says: 1 without one."""
    try:
        return max(1, int(os.environ.get("WORLD_SIZE", "1")))
    except ValueError:
        return 1


def is_main() -> bool:
    """Return whether this is the first process, which alone writes files and the registry."""
    return process_count() == 1 or int(os.environ.get("RANK", "0")) == 0


def _state() -> Any:
    """Join the other processes (gloo on CPUs, NCCL on GPUs); the trainer takes over what is set up here."""
    import torch
    from accelerate import PartialState

    on_cpu = not torch.cuda.is_available()
    state = PartialState(cpu=on_cpu, timeout=_TIMEOUT)
    if not on_cpu:
        torch.cuda.set_device(state.device)
    return state


def wait_for_all() -> None:
    """Wait until every process has come here."""
    if process_count() > 1:
        _state().wait_for_everyone()


def from_main(make: Callable[[], T]) -> T:
    """Return in every process what `make` returned in the first, which alone calls it; it must be picklable."""
    if process_count() == 1:
        return make()
    from accelerate.utils import broadcast_object_list

    state = _state()
    values = [make() if state.is_main_process else None]
    result: T = broadcast_object_list(values)[0]
    return result
