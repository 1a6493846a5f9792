"""A function called on many items as Ray tasks, a bounded number of them at a time, with the results in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from hins_memory.cluster.connection import load_ray
from hins_memory.errors import HinsError

__all__ = ["in_order", "places"]

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

# Tasks that are submitted for each CPU of the cluster: one runs, one is ready to begin.
_FOR_EACH_CPU = 2
# How often a task is begun again because its worker or its node was lost.
_RETRIES = 8


def places() -> int:
    """Return how many tasks the connected cluster runs at a time now, at least 1."""
    return max(1, int(load_ray().cluster_resources().get("CPU", 1)))


def in_order(function: Callable[[Any, _Item], _Result], work: Any, items: Iterable[_Item]) -> Iterator[_Result]:
    """Call ``function(work, item)`` on every item as tasks of one CPU each; yield the results in the items' order.

    Twice as many tasks as the cluster has CPUs are submitted at a time; items are read as they are needed. A task
    whose worker or node is lost is begun again elsewhere, so that it has to bear being run twice. Results wait for
    those before them: they have to be small, e.g. paths of files.

    Args:
        function: importable on the cluster's nodes.
        work: what is the same for all items; sent once.
        items: small values.

    Raises:
        HinsError: the function raised one, or a task's workers were lost again and again.
    """
    ray = load_ray()
    shared = ray.put(work)
    task = ray.remote(num_cpus=1, max_retries=_RETRIES)(function)
    waiting: dict[Any, int] = {}
    done: dict[int, _Result] = {}
    given, left = iter(items), True
    submitted = yielded = 0
    try:
        while True:
            while left and len(waiting) < _FOR_EACH_CPU * places():
                for item in given:
                    waiting[task.remote(shared, item)] = submitted
                    submitted += 1
                    break
                else:
                    left = False
            while yielded in done:
                yield done.pop(yielded)
                yielded += 1
            if not waiting:
                return
            ready, _ = ray.wait(list(waiting), num_returns=1)
            for reference in ready:
                done[waiting.pop(reference)] = _result(ray, reference)
    finally:
        for reference in waiting:
            ray.cancel(reference)


def _result(ray: Any, reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        # Its cause is what the function raised.
        raise error.cause from None
    except ray.exceptions.RayError as error:
        why = str(error).splitlines()[0].split(". ")[0].rstrip(".")
        raise HinsError(
            f"Work on the Ray cluster was lost {_RETRIES + 1} times: {why}.",
            "See the cluster's state (`ray status`), e.g. its memory, and run the same command again: it resumes.",
        ) from error
