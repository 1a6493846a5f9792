"""A Ray cluster of this machine, for as long as a benchmark needs it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

__all__ = ["ray_cluster"]

# What the stages' tasks exchange through it is paths, texts of a batch and their vectors.
_OBJECT_STORE = 80 * 2**20


@contextlib.contextmanager
def ray_cluster(workers: int) -> Iterator[str]:
    """Start a cluster of one node with as many CPUs; yield its address."""
    import ray
    from ray.cluster_utils import Cluster

    # By default workers have the lowest priority, and a cluster has daemons for hosts that this one has not.
    few = {"include_dashboard": False, "no_monitor": True, "include_log_monitor": False}
    cluster = Cluster()
    cluster.add_node(num_cpus=workers, object_store_memory=_OBJECT_STORE, **few, _system_config={"worker_niceness": 0})
    try:
        yield str(cluster.address)
    finally:
        ray.shutdown()
        cluster.shutdown()
