"""A function run by several workers of a Ray cluster at once, which know of one another as torch's processes do."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from hins_memory.cluster.connection import load_ray
from hins_memory.errors import ConfigError, HinsError

__all__ = ["in_workers"]

_Work = TypeVar("_Work")

# How often all workers are begun again because one of them, or its node, was lost.
_RETRIES = 8
# The others wait while the first one writes and calibrates. A lost worker is noticed by Ray, not by this limit.
_TIMEOUT_SECONDS = 24 * 3600

logger = logging.getLogger(__name__)


def in_workers(function: Callable[[_Work], None], work: _Work, workers: int, folder: Path) -> None:
    """Call ``function(work)`` in every worker of a group, by Ray Train's TorchTrainer, until all have returned.

    Each has a process group of torch and its environment variables, as under ``torchrun``: NCCL and a GPU each where
    the cluster has GPUs, else gloo and an equal share of the CPUs. When a worker is lost, all of them end and begin
    again, so that the function has to continue what it finds.

    Args:
        function: importable on the cluster's nodes; what it returns is not used.
        work: what it is called on; small.
        workers: how many, at least 1.
        folder: where Ray Train keeps its own state; on a file system that all nodes share.

    Raises:
        ConfigError: the cluster has too few CPUs or GPUs.
        HinsError: the function raised one, or workers were lost again and again.
    """
    ray = load_ray()
    from ray.train import RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchConfig, TorchTrainer

    share = _share([node["Resources"] for node in ray.nodes() if node["Alive"]], workers)
    trainer = TorchTrainer(
        lambda: function(work),
        torch_config=TorchConfig(timeout_s=_TIMEOUT_SECONDS),
        scaling_config=ScalingConfig(num_workers=workers, use_gpu="GPU" in share, resources_per_worker=share),
        run_config=RunConfig(name="ray", storage_path=str(folder)),
    )
    for left in reversed(range(_RETRIES + 1)):
        try:
            with _interruptible():
                trainer.fit()
            return
        except TrainingFailedError as error:
            # A worker whose peer is lost fails by its connection, at times before Ray knows of the loss. What one of
            # them raised on purpose would be raised again.
            failures = getattr(error, "worker_failures", {}).values()
            if ours := next((one for one in failures if isinstance(one, HinsError)), None):
                raise ours from None
            if not left or not failures:
                raise _lost(error) from error
            logger.warning("A worker of the Ray cluster was lost; the workers begin again.")


def _share(nodes: list[dict[str, float]], workers: int) -> dict[str, float]:
    """Return what each worker takes of the cluster's resources: a GPU, or as many CPUs as each can have.

    Raises:
        ConfigError: there are fewer than workers.
    """
    kind = "GPU" if any(node.get("GPU") for node in nodes) else "CPU"
    most = int(max((node.get(kind, 0) for node in nodes), default=0)) if kind == "CPU" else 1
    for count in range(most, 0, -1):
        if sum(int(node.get(kind, 0) // count) for node in nodes) >= workers:
            return {"CPU": 1, "GPU": 1} if kind == "GPU" else {"CPU": count}
    held = int(sum(node.get(kind, 0) for node in nodes))
    raise ConfigError(
        f"The Ray cluster has {held} {kind}s, and {workers} workers need one each.", "Use fewer workers (--workers)."
    )


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let an interrupt end the block as it does without Ray Train, which handles it until the process ends."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit:
        # Ray Train has stopped the workers.
        raise KeyboardInterrupt from None
    finally:
        signal.signal(signal.SIGINT, handler)


def _lost(error: Exception) -> HinsError:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return HinsError(
        f"The workers of the Ray cluster failed: {lines[-1].strip().rstrip('.') if lines else type(error).__name__}.",
        "See the cluster's state (`ray status`), e.g. its memory; `hins train --resume` continues from a checkpoint.",
    )
